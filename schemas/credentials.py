"""Secrets a request may bring for the URLs it names; they are used and never echoed.

Used by control, prompt, app.prepare, app.storage, app.worker; may import its folder alone.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from schemas.base import Strict

__all__ = ["Auth", "BasicAuth", "BearerAuth", "Credential", "HeaderAuth", "QueryAuth", "S3Auth"]


class BearerAuth(Strict):
    """``Authorization: Bearer <token>``; also the access token of a gated Hugging Face repository."""

    type: Literal["bearer"]
    token: SecretStr


class BasicAuth(Strict):
    """HTTP basic authentication."""

    type: Literal["basic"]
    username: str
    password: SecretStr


class HeaderAuth(Strict):
    """One header of the caller's choice."""

    type: Literal["header"]
    header_name: str = Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$")
    header_value: SecretStr


class QueryAuth(Strict):
    """One query parameter, set on the URL just before it is fetched."""

    type: Literal["query"]
    query_param: str = Field(min_length=1, max_length=256)
    query_value: SecretStr


class S3Auth(Strict):
    """Keys of an S3-compatible store."""

    type: Literal["s3"]
    access_key_id: str
    secret_access_key: SecretStr
    session_token: SecretStr | None = None
    endpoint: str | None = None
    region: str | None = None


Auth = Annotated[BearerAuth | BasicAuth | HeaderAuth | QueryAuth | S3Auth, Field(discriminator="type")]


class Credential(Strict):
    """An authentication for every URL that matches ``url_pattern``; the first match of a list wins."""

    url_pattern: str = Field(
        min_length=1,
        max_length=2048,
        description="Glob over the whole URL: `**` any characters, `*` any but `/`, `?` exactly one.",
    )
    auth: Auth

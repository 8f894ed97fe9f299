"""Signs S3 requests with boto3: whose keys, which endpoint, which region. No request is sent here.

Used by s3, s3_place, app.bridge.links; may import its folder alone.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.storage.config import S3Config
from app.storage.faults import Fault

__all__ = ["S3Account", "S3Signer"]

# A signature is made for each try and good for its beginning only; an hour forgives clocks that differ.
SIGNATURE_S: Final = 3600
_DEFAULT_REGION: Final = "us-east-1"
_REGION: Final = re.compile(r"[a-z]{2}[a-z0-9-]{1,30}")
_MOST_CLIENTS: Final = 32


@dataclass(frozen=True)
class S3Account:
    """Whose keys sign, and where to; None stands for the operator's."""

    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    endpoint_url: str | None = None
    region: str | None = None


class S3Signer:
    """Signed URLs for S3 calls, path style, signature version 4. Every method blocks and is called in a thread.

    The SDK finds the operator's keys by its own chain (variables, profile, web identity, instance role) and renews
    them. Where there are none at all, URLs are left unsigned: public buckets can be read.
    """

    def __init__(self, config: S3Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._session: Any = None
        self._clients: dict[tuple[S3Account, str], Any] = {}
        self._regions: dict[tuple[str | None, str], str] = {}

    def sign(self, account: S3Account, operation: str, params: Mapping[str, object]) -> str:
        """The signed URL of a call, good for an hour.

        Args:
            account: Whose keys, where to.
            operation: boto3's name, such as ``get_object``.
            params: Its parameters; those that stand for headers have to be sent as given here.

        Raises:
            Fault: There are no usable keys, or the parameters are wrong.
        """
        import botocore.exceptions as problems  # noqa: PLC0415 - slow to import, needed by those who use S3

        try:
            with self._lock:
                client = self._client(account, str(params["Bucket"]))
            url = client.generate_presigned_url(operation, Params=dict(params), ExpiresIn=SIGNATURE_S)
        except problems.ParamValidationError as exc:
            raise Fault("bucket and key are not what S3 takes; correct the URL", passing=False) from exc
        except (problems.NoCredentialsError, problems.CredentialRetrievalError, problems.MetadataRetrievalError) as exc:
            raise Fault("the AWS SDK gets no keys; set AWS_ACCESS_KEY_ID and its secret", passing=True) from exc
        except (problems.BotoCoreError, ValueError) as exc:
            reason = f"endpoint, region, profile or keys are wrong ({type(exc).__name__}); correct them"
            raise Fault(reason, passing=False) from exc
        return str(url)

    def learn_region(self, account: S3Account, bucket: str, region: str) -> bool:
        """Note where a bucket lives, as its server says; True if that was news."""
        key = account.endpoint_url, bucket
        known = self._regions.get(key) or self._region(account)
        if region == known or not _REGION.fullmatch(region):
            return False
        self._regions[key] = region
        return True

    def _region(self, account: S3Account) -> str:
        return account.region or self._config.region or _DEFAULT_REGION

    def _client(self, account: S3Account, bucket: str) -> Any:
        region = self._regions.get((account.endpoint_url, bucket)) or self._region(account)
        client = self._clients.pop((account, region), None)
        if client is None:
            client, is_signed = self._new_client(account, region)
            if not is_signed:
                return client  # keys may turn up later
        if len(self._clients) >= _MOST_CLIENTS:
            self._clients.pop(next(iter(self._clients)))
        self._clients[account, region] = client
        return client

    def _new_client(self, account: S3Account, region: str) -> tuple[Any, bool]:
        import boto3  # noqa: PLC0415 - see above
        from botocore import UNSIGNED  # noqa: PLC0415 - see above
        from botocore.config import Config  # noqa: PLC0415 - see above

        config = self._config
        if self._session is None:
            self._session = boto3.Session(
                aws_access_key_id=config.access_key_id,
                aws_secret_access_key=config.secret_access_key,
                aws_session_token=config.session_token,
                profile_name=config.profile,
            )
        own = account.access_key_id is not None
        signed = own or self._session.get_credentials() is not None
        client = self._session.client(
            "s3",
            region_name=region,
            endpoint_url=account.endpoint_url or config.endpoint_url,
            aws_access_key_id=account.access_key_id,
            aws_secret_access_key=account.secret_access_key,
            aws_session_token=account.session_token,
            config=Config(
                signature_version="s3v4" if signed else UNSIGNED,
                s3={"addressing_style": "path"},
                # Content-MD5 does the same on every server; these are known to AWS and few others.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        return client, signed

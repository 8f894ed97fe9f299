"""Every setting, read from the environment (and a ``.env`` file) here and nowhere else.

Names and meanings are the contract's; docs/operations.md is held to this file by a test. A wrong value stops the start
with one line that names the variable, the value and what it should be; values of secrets are not shown.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.errors import ConfigurationError
from brokers.channels import Names
from brokers.nats import NatsConfig

__all__ = ["COMFY_EVENTS", "Settings", "load_settings"]

COMFY_EVENTS = (
    "status",
    "progress",
    "progress_state",
    "executing",
    "execution_start",
    "execution_cached",
    "executed",
    "execution_success",
    "execution_interrupted",
    "execution_error",
)
BRIDGE_EVENTS = ("file_downloaded", "file_uploaded", "file_deleted")
SYSTEM_META = "SYSTEM_META_"
_NOT_IN_A_WORKER_ID = re.compile(r"[^A-Za-z0-9_-]")
_SECRETS = frozenset({"BROKER_URL", "NATS_TOKEN", "OUTPUT_STORE"})


def _broker_url(value: SecretStr) -> SecretStr:
    scheme, separator, rest = value.get_secret_value().partition("://")
    if not separator or scheme not in ("nats", "tls") or not rest.rpartition("@")[2].strip("/"):
        raise ValueError("it should be nats://[user:password@]host[:port][,host…] or tls://…")
    return value


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it should be http://host:port")
    return value.rstrip("/")


def _prefix(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", value):
        raise ValueError("it should be letters, digits, `_` and `-`, with single dots between them")
    return value


def _output_store(value: str) -> str:
    if value and not re.fullmatch(r"nats://[A-Za-z0-9_-]+|file:///.*", value):
        raise ValueError("it should be nats://bucket or file:///dir")
    return value


class Settings(BaseSettings):
    """One frozen set of settings; field names are the variables' names in lower case."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True)

    broker_url: Annotated[SecretStr, AfterValidator(_broker_url)] = SecretStr("nats://127.0.0.1:4222")
    broker_tls_ca: Path | None = None
    broker_tls_cert: Path | None = None
    broker_tls_key: Path | None = None
    nats_token: SecretStr | None = None
    nats_creds_file: Path | None = None
    nats_ack_wait_s: float = Field(default=30, ge=1, le=3600)
    topic_prefix: Annotated[str, AfterValidator(_prefix)] = "comfyui"
    worker_id: str = ""

    direct_address: str = "127.0.0.1"
    comfyui_port_host: int = Field(default=8188, ge=1, le=65535)
    comfyui_url: str = ""
    comfy_home: Path | None = None
    input_dir: Path | None = None
    output_dir: Path | None = None

    max_in_flight: int = Field(default=4, ge=1, le=1024)
    prefetch: int = Field(default=1, ge=0, le=1024)
    max_attempts: int = Field(default=3, ge=1)
    prompt_timeout_s: float = Field(default=3600, gt=0)
    drain_timeout_s: float = Field(default=30, ge=0)
    inline_limit_kb: int = Field(default=512, ge=0)
    progress_rate: float = Field(default=10, gt=0, le=1000)
    result_retention_h: float = Field(default=168, gt=0)
    output_store: Annotated[str, AfterValidator(_output_store)] = ""
    prepend_filenames: bool = True
    max_queue_depth: int = Field(default=0, ge=0)

    system_events: Annotated[tuple[str, ...], NoDecode] | None = None
    system_webhook_events: Annotated[tuple[str, ...], NoDecode] = ()

    host: str = "::"
    port: int = Field(default=3000, ge=0, le=65535)
    log_level: Literal["trace", "debug", "info", "warning", "error", "fatal"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        lowered = value.lower() if isinstance(value, str) else value
        return {"warn": "warning", "silent": "fatal"}.get(lowered, lowered)

    @field_validator("system_events", "system_webhook_events", mode="before")
    @classmethod
    def _event_list(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        named = tuple(part.strip() for part in value.split(",") if part.strip())
        if named == ("all",):
            return COMFY_EVENTS
        if unknown := [name for name in named if name not in (*COMFY_EVENTS, *BRIDGE_EVENTS)]:
            raise ValueError(f"{unknown[0]} is no event; it should be `all` or some of {', '.join(COMFY_EVENTS)}")
        return named

    @field_validator("comfyui_url", mode="after")
    @classmethod
    def _url(cls, value: str) -> str:
        return _http_url(value) if value else value

    # --- what follows from the settings

    @property
    def comfy_url(self) -> str:
        """Base URL of ComfyUI without a slash at the end."""
        if self.comfyui_url:
            return self.comfyui_url
        host = f"[{self.direct_address}]" if ":" in self.direct_address else self.direct_address
        return f"http://{host}:{self.comfyui_port_host}"

    @property
    def worker(self) -> str:
        """The worker's id: as set, else host name and six hex digits of ComfyUI's URL and the port."""
        if self.worker_id:
            return _NOT_IN_A_WORKER_ID.sub("-", self.worker_id)[:64]
        mark = hashlib.sha256(f"{self.comfy_url} {self.port}".encode()).hexdigest()[:6]
        return f"{_NOT_IN_A_WORKER_ID.sub('-', socket.gethostname())[:57]}-{mark}"

    @property
    def input_folder(self) -> Path | None:
        """ComfyUI's input folder as this process sees it, if one was named; a probe decides whether it is shared."""
        return self.input_dir or (self.comfy_home / "input" if self.comfy_home else None)

    @property
    def output_folder(self) -> Path | None:
        """ComfyUI's output folder, likewise."""
        return self.output_dir or (self.comfy_home / "output" if self.comfy_home else None)

    @property
    def published_events(self) -> frozenset[str]:
        """Websocket events to publish: SYSTEM_EVENTS, else those of SYSTEM_WEBHOOK_EVENTS."""
        chosen = self.system_webhook_events if self.system_events is None else self.system_events
        return frozenset(chosen) & frozenset(COMFY_EVENTS)

    @property
    def system_metadata(self) -> dict[str, str]:
        """The SYSTEM_META_<key> variables by key, as metadata of system and storage events."""
        return {name[len(SYSTEM_META) :]: value for name, value in os.environ.items() if name.startswith(SYSTEM_META)}

    @property
    def names(self) -> Names:
        """All channel names."""
        return Names(self.topic_prefix)

    @property
    def nats(self) -> NatsConfig:
        """How to reach NATS."""
        scheme, _, rest = self.broker_url.get_secret_value().partition("://")
        user, at, hosts = rest.rpartition("@")
        return NatsConfig(
            servers=tuple(f"{scheme}://{user}{at}{host.strip('/')}" for host in hosts.split(",") if host),
            names=self.names,
            ack_wait_s=self.nats_ack_wait_s,
            result_retention_h=self.result_retention_h,
            token=self.nats_token.get_secret_value() if self.nats_token else None,
            credentials_file=self.nats_creds_file,
            tls_ca=self.broker_tls_ca,
            tls_cert=self.broker_tls_cert,
            tls_key=self.broker_tls_key,
            client_name=f"comfybus-{self.worker}",
        )


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; what a command sets itself goes before the environment.

    Raises:
        ConfigurationError: One line about the first wrong variable.
    """
    try:
        return Settings(**overrides)
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_input=True)[0]
        raise ConfigurationError(_sentence(error)) from None


def _sentence(error: Mapping[str, Any]) -> str:
    name = str(error["loc"][0]).upper() if error["loc"] else "settings"
    reason = str(error["msg"]).removeprefix("Value error, ")
    value = "" if name in _SECRETS else f"={error['input']!r}"
    return f"{name}{value} is wrong: {reason[:1].lower()}{reason[1:]}"

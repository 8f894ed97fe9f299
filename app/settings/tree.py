"""Every setting, read from the environment (and a ``.env`` file) here and nowhere else.

Used by bridge, broker, parts, setup, tracing, app.cli, app.worker; may import brokers, schemas.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.settings import bridge_checks, checks
from brokers.channels import Names
from schemas.events import COMFY_EVENTS

__all__ = ["SHIPPED_WORKFLOWS", "Settings"]

SYSTEM_META = "SYSTEM_META_"
# The shipped workflows are a package beside this one.
SHIPPED_WORKFLOWS = Path(__file__).parents[2] / "workflows"
SALAD = "salad_"
_NOT_IN_A_WORKER_ID = re.compile(r"[^A-Za-z0-9_-]")

Events = Annotated[tuple[str, ...], NoDecode, BeforeValidator(checks.event_names)]
List = Annotated[tuple[str, ...], NoDecode, BeforeValidator(checks.name_list)]
Delays = Annotated[tuple[float, ...], NoDecode, BeforeValidator(bridge_checks.schedule)]
# A variable that is set and empty names no file.
OptionalPath = Annotated[Path | None, BeforeValidator(lambda value: value or None)]


class Settings(BaseSettings):
    """One frozen set of settings; field names are the variables' names in lower case."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True)

    # The broker.
    broker_url: Annotated[SecretStr, AfterValidator(checks.broker_url)] = SecretStr("nats://127.0.0.1:4222")
    broker_tls_ca: Path | None = None
    broker_tls_cert: Path | None = None
    broker_tls_key: Path | None = None
    nats_token: SecretStr | None = None
    nats_creds_file: Path | None = None
    nats_ack_wait_s: float = Field(default=30, ge=1, le=3600)
    kafka_sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_session_timeout_ms: int = Field(default=45_000, ge=1_000)
    kafka_max_poll_interval_ms: int = Field(default=300_000, ge=1_000)
    kafka_static_membership: bool = False
    topic_prefix: Annotated[str, AfterValidator(checks.topic_prefix)] = "comfyui"
    worker_id: str = ""

    # ComfyUI.
    direct_address: str = "127.0.0.1"
    comfyui_port_host: int = Field(default=8188, ge=1, le=65535)
    comfyui_url: Annotated[str, AfterValidator(checks.http_url)] = ""
    comfy_home: Path | None = None
    input_dir: Path | None = None
    output_dir: Path | None = None
    model_dir: Path | None = None
    cmd: str = ""
    always_restart_comfyui: bool = True
    startup_check_interval_s: float = Field(default=1, gt=0)
    startup_check_max_tries: int = Field(default=20, ge=1)
    comfy_memory_limit_gb: float = Field(default=0, ge=0)

    # What is installed and run before the first request.
    manifest: OptionalPath = None
    manifest_json: SecretStr | None = None
    comfy_python: OptionalPath = None
    setup_timeout_s: float = Field(default=3600, gt=0)
    warmup_prompt_file: OptionalPath = None
    warmup_prompt_url: SecretStr | None = None

    # Prompts.
    max_in_flight: int = Field(default=4, ge=1, le=1024)
    prefetch: int = Field(default=1, ge=0, le=1024)
    max_attempts: int = Field(default=3, ge=1)
    prompt_timeout_s: float = Field(default=3600, gt=0)
    drain_timeout_s: float = Field(default=30, ge=0)
    inline_limit_kb: int = Field(default=512, ge=0)
    progress_rate: float = Field(default=10, gt=0, le=1000)
    result_retention_h: float = Field(default=168, gt=0)
    prepend_filenames: bool = True
    max_queue_depth: int = Field(default=0, ge=0)
    workflow_dir: Path | None = None
    allow_local_paths: bool = False
    input_cache_gb: float = Field(default=2, ge=0)
    input_cache_h: float = Field(default=24, gt=0)

    # The language model of `comfybus workflow generate`.
    workflow_llm_url: Annotated[str, AfterValidator(checks.http_url)] = ""
    workflow_llm_model: str = ""
    workflow_llm_api_key: SecretStr | None = None
    anthropic_api_key: SecretStr | None = None
    anthropic_base_url: Annotated[str, AfterValidator(checks.http_url)] = "https://api.anthropic.com"
    minimax_api_key: SecretStr | None = None
    minimax_base_url: Annotated[str, AfterValidator(checks.http_url)] = "https://api.minimax.io"

    # Storage.
    output_store: Annotated[str, AfterValidator(checks.output_store)] = ""
    cache_dir: Path = Field(default_factory=lambda: Path.home() / ".cache" / "comfybus")
    lru_cache_size_gb: float = Field(default=0, ge=0)
    max_download_gb: float = Field(default=100, gt=0)
    allowed_private_hosts: List = ()
    allowed_urls: List = ()
    http_auth_header_name: str = ""
    http_auth_header_value: SecretStr | None = None
    http_auth_hosts: List = ()
    aws_region: str | None = Field(default=None, validation_alias=AliasChoices("aws_region", "aws_default_region"))
    aws_endpoint_url: str | None = Field(
        default=None, validation_alias=AliasChoices("aws_endpoint_url_s3", "aws_endpoint_url")
    )
    aws_access_key_id: SecretStr | None = None
    aws_secret_access_key: SecretStr | None = None
    aws_session_token: SecretStr | None = None
    aws_profile: str | None = None
    azure_storage_connection_string: SecretStr | None = None
    azure_storage_account: str | None = None
    azure_storage_key: SecretStr | None = None
    azure_storage_sas_token: SecretStr | None = None
    hf_token: SecretStr | None = None
    hf_endpoint: Annotated[str, AfterValidator(checks.http_url)] = "https://huggingface.co"
    http_proxy: SecretStr | None = None
    https_proxy: SecretStr | None = None
    no_proxy: str = ""

    # Salad: who this instance is; any of them set means that it runs there.
    salad_organization_name: str = ""
    salad_organization_id: str = ""
    salad_project_name: str = ""
    salad_project_id: str = ""
    salad_container_group_name: str = ""
    salad_container_group_id: str = ""
    salad_instance_id: str = ""
    salad_machine_id: str = ""

    # Webhooks.
    webhook_secret: Annotated[SecretStr | None, AfterValidator(bridge_checks.webhook_secret)] = None
    webhook_subscriptions: OptionalPath = None
    webhook_schedule: Delays = ()
    prompt_webhook_retries: int | None = Field(default=None, ge=1, le=1000)
    webhook_timeout_s: float = Field(default=30, gt=0, le=600)
    webhook_concurrency: int = Field(default=1, ge=1, le=64)
    webhook_inline_kb: int = Field(default=32 * 1024, ge=0)
    webhook_signed_links: bool = False
    system_webhook_url: Annotated[SecretStr | None, AfterValidator(bridge_checks.webhook_url)] = None
    bridge_lease_s: float = Field(default=10, ge=1, le=600)

    # Events, HTTP, logs.
    system_events: Events | None = None
    system_webhook_events: Events = ()
    host: str = "::"
    port: int = Field(default=3000, ge=0, le=65535)
    # Traces. These are the standard variables; the SDK reads its others itself.
    otel_sdk_disabled: bool = False
    otel_traces_exporter: Literal["", "none", "otlp", "console"] = ""
    otel_exporter_otlp_endpoint: Annotated[str, AfterValidator(checks.http_url)] = ""
    otel_exporter_otlp_traces_endpoint: Annotated[str, AfterValidator(checks.http_url)] = ""
    otel_exporter_otlp_protocol: str = "http/protobuf"
    otel_exporter_otlp_traces_protocol: str = ""
    otel_exporter_otlp_headers: SecretStr | None = None

    log_level: Literal["trace", "debug", "info", "warning", "error", "fatal"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        lowered = value.lower() if isinstance(value, str) else value
        return {"warn": "warning", "silent": "fatal"}.get(lowered, lowered)

    # What follows from the settings.

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
    def salad_metadata(self) -> dict[str, str]:
        """Each SALAD_* variable that is set, by its name in lower case; empty elsewhere than on Salad."""
        fields = (name for name in type(self).model_fields if name.startswith(SALAD))
        return {name: value for name in fields if (value := getattr(self, name))}

    @property
    def system_metadata(self) -> dict[str, str]:
        """Metadata of system and storage events: the SYSTEM_META_<key> variables by key, and those of Salad."""
        named = {name[len(SYSTEM_META) :]: value for name, value in os.environ.items() if name.startswith(SYSTEM_META)}
        return {**self.salad_metadata, **named}

    @property
    def uses_kafka(self) -> bool:
        """BROKER_URL names a Kafka."""
        return self.broker_url.get_secret_value().startswith("kafka")

    @property
    def names(self) -> Names:
        """All channel names."""
        return Names(self.topic_prefix)

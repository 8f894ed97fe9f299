"""What ComfyUI's process, preparation and storage are told of the settings.

Used by bridge, setup, app.cli, app.worker; may import app.comfy, app.prepare, app.storage.
"""

from __future__ import annotations

import os

from app.comfy.process_config import ProcessConfig
from app.prepare.prepare import PrepareConfig
from app.settings.broker import reveal
from app.settings.tree import Settings
from app.storage.config import AzureConfig, HuggingFaceConfig, ProxyConfig, S3Config, StorageConfig

__all__ = ["prepare_config", "process_config", "storage_config"]

GIB = 1024**3


def process_config(settings: Settings) -> ProcessConfig | None:
    """How to launch ComfyUI; None when a running one is attached to."""
    if not settings.cmd:
        return None
    return ProcessConfig(
        command=settings.cmd,
        url=settings.comfy_url,
        environment=dict(os.environ),
        home=settings.comfy_home,
        check_interval_s=settings.startup_check_interval_s,
        check_max_tries=settings.startup_check_max_tries,
        always_restart=settings.always_restart_comfyui,
    )


def prepare_config(settings: Settings) -> PrepareConfig:
    """Settings of preparation."""
    home = settings.comfy_home
    return PrepareConfig(
        prepend_filenames=settings.prepend_filenames,
        model_dir=settings.model_dir or (home / "models" if home else None),
        local_paths=settings.allow_local_paths,
        limit_bytes=int(settings.input_cache_gb * GIB),
        keep_s=settings.input_cache_h * 3600,
    )


def storage_config(settings: Settings) -> StorageConfig:
    """Settings of everything that moves files."""
    name, value = settings.http_auth_header_name, reveal(settings.http_auth_header_value)
    return StorageConfig(
        cache_dir=settings.cache_dir,
        cache_limit_bytes=int(settings.lru_cache_size_gb * GIB),
        max_download_bytes=int(settings.max_download_gb * GIB),
        symlinks=bool(settings.cmd),
        output_store=settings.output_store or ("" if settings.uses_kafka else f"nats://{settings.names.output_bucket}"),
        allowed_private_hosts=settings.allowed_private_hosts,
        allowed_urls=settings.allowed_urls,
        http_auth_header=(name, value) if name and value else None,
        http_auth_hosts=settings.http_auth_hosts,
        s3=S3Config(
            endpoint_url=settings.aws_endpoint_url,
            region=settings.aws_region,
            access_key_id=reveal(settings.aws_access_key_id),
            secret_access_key=reveal(settings.aws_secret_access_key),
            session_token=reveal(settings.aws_session_token),
            profile=settings.aws_profile,
        ),
        azure=AzureConfig(
            connection_string=reveal(settings.azure_storage_connection_string),
            account=settings.azure_storage_account,
            key=reveal(settings.azure_storage_key),
            sas_token=reveal(settings.azure_storage_sas_token),
        ),
        hugging_face=HuggingFaceConfig(token=reveal(settings.hf_token), endpoint=settings.hf_endpoint),
        proxies=ProxyConfig(
            http=reveal(settings.http_proxy), https=reveal(settings.https_proxy), no_proxy=settings.no_proxy
        ),
    )

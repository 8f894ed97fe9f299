"""Everything the stores need to know, given from outside: nothing in this package reads the environment.

Used by most of its folder, app.bridge, app.settings, app.setup; may import nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["AzureConfig", "HuggingFaceConfig", "ProxyConfig", "S3Config", "StorageConfig", "Timings"]

GIB = 1024**3


@dataclass(frozen=True)
class Timings:
    """Deadlines and retries of transfers, in seconds.

    Attributes:
        connect_s: To connect, name resolution and TLS included in ``answer_s``.
        answer_s: From the request to the first byte of its answer.
        stall_s: In which ``stall_bytes`` have to move; slower transfers count as stalled.
        stall_bytes: 64 KiB in 60 s is about curl's customary ``--speed-limit 1000``.
        tries: Tries of one step in a row without progress.
        first_delay_s: Before the second try; doubles from then on, with jitter.
        longest_delay_s: Between two tries, also where the other side asks for more.
    """

    connect_s: float = 10
    answer_s: float = 60
    stall_s: float = 60
    stall_bytes: int = 64 * 1024
    tries: int = 4
    first_delay_s: float = 0.5
    longest_delay_s: float = 20


@dataclass(frozen=True)
class ProxyConfig:
    """HTTP_PROXY, HTTPS_PROXY and NO_PROXY; the lower-case variants win where both are set."""

    http: str | None = field(default=None, repr=False)
    https: str | None = field(default=None, repr=False)
    no_proxy: str = ""


@dataclass(frozen=True)
class S3Config:
    """The operator's S3: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_REGION or AWS_DEFAULT_REGION, AWS_* keys.

    Without keys the SDK's own chain is asked (profile, web identity, instance role).
    """

    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None


@dataclass(frozen=True)
class AzureConfig:
    """The operator's Azure account, by the AZURE_STORAGE_* variables.

    The first complete way of these is used: connection string; account and key; account and SAS token; account alone,
    which asks DefaultAzureCredential.
    """

    connection_string: str | None = field(default=None, repr=False)
    account: str | None = None
    key: str | None = field(default=None, repr=False)
    sas_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class HuggingFaceConfig:
    """HF_TOKEN and HF_ENDPOINT."""

    token: str | None = field(default=None, repr=False)
    endpoint: str = "https://huggingface.co"


@dataclass(frozen=True)
class StorageConfig:
    """One frozen set of storage settings.

    Attributes:
        cache_dir: CACHE_DIR; created when missing, on a disk that can lock files.
        cache_limit_bytes: LRU_CACHE_SIZE_GB; 0 for no limit.
        max_download_bytes: MAX_DOWNLOAD_GB.
        symlinks: CMD is set, so that ComfyUI runs here and follows links that lead out of its folders.
        output_store: OUTPUT_STORE, with the broker's default filled in; empty for none.
        allowed_private_hosts: ALLOWED_PRIVATE_HOSTS: ``host``, ``host:port``, CIDR, ``*``.
        allowed_urls: ALLOWED_URLS: globs; empty for all.
        http_auth_header: HTTP_AUTH_HEADER_NAME and HTTP_AUTH_HEADER_VALUE.
        http_auth_hosts: HTTP_AUTH_HOSTS: ``host`` or ``host:port``.
    """

    cache_dir: Path
    cache_limit_bytes: int = 0
    max_download_bytes: int = 100 * GIB
    symlinks: bool = False
    output_store: str = ""
    allowed_private_hosts: tuple[str, ...] = ()
    allowed_urls: tuple[str, ...] = ()
    http_auth_header: tuple[str, str] | None = field(default=None, repr=False)
    http_auth_hosts: tuple[str, ...] = ()
    s3: S3Config = field(default_factory=S3Config)
    azure: AzureConfig = field(default_factory=AzureConfig)
    hugging_face: HuggingFaceConfig = field(default_factory=HuggingFaceConfig)
    proxies: ProxyConfig = field(default_factory=ProxyConfig)
    timings: Timings = field(default_factory=Timings)

    def secrets(self) -> list[str]:
        """The operator's own secrets, to be kept out of what is published."""
        connection = dict(part.partition("=")[::2] for part in (self.azure.connection_string or "").split(";"))
        signatures = [(self.azure.sas_token or "").lstrip("?"), connection.get("SharedAccessSignature", "")]
        found = [
            self.http_auth_header[1] if self.http_auth_header else None,
            self.s3.access_key_id,
            self.s3.secret_access_key,
            self.s3.session_token,
            self.azure.key,
            connection.get("AccountKey"),
            *signatures,
            *(part[4:] for one in signatures for part in one.split("&") if part.startswith("sig=")),
            self.hugging_face.token,
            *(_password(proxy) for proxy in (self.proxies.http, self.proxies.https)),
        ]
        return [value for value in found if value]


def _password(url: str | None) -> str | None:
    authority = (url or "").partition("://")[2].partition("/")[0]
    return authority.rpartition("@")[0].partition(":")[2]

"""Every backend, built from the settings, in the order in which they are asked whether a URL is theirs.

Used by stores, app.bridge.results; may import app.errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.errors import ConfigurationError
from app.storage.azure_access import AzureAccount, azure_account
from app.storage.azure_blob import AzureBlobStorage
from app.storage.base import Storage
from app.storage.carrier import Carrier
from app.storage.config import StorageConfig
from app.storage.faults import Fault
from app.storage.file import FileStorage, file_path
from app.storage.guard import Guard
from app.storage.http import HttpStorage
from app.storage.hub_process import HubProcess
from app.storage.huggingface import HuggingFaceStorage
from app.storage.nats_object import NatsObjectStorage, Objects
from app.storage.outgoing import Outgoing
from app.storage.proxies import Proxies
from app.storage.s3 import S3Storage

__all__ = ["Backends", "make_backends"]


@dataclass(frozen=True)
class Backends:
    """The backends and what they share.

    Attributes:
        all: In the order of asking; HTTP takes what is left of http and https URLs.
        outgoing: Their connections, to be opened and closed around their use.
        azure_account: URL of the operator's storage account, if one is configured.
    """

    all: tuple[Storage, ...]
    outgoing: Outgoing
    azure_account: str | None


def make_backends(config: StorageConfig, objects: Objects | None) -> Backends:
    """Build all backends; nothing is connected.

    Raises:
        ConfigurationError: A setting is wrong; the sentence names the variable.
    """
    try:
        account = azure_account(config.azure)
    except ValueError as exc:
        raise ConfigurationError(f"AZURE_STORAGE_CONNECTION_STRING is wrong: {exc}") from exc
    try:
        guard = Guard(config.allowed_private_hosts, _endpoints(config, account))
    except ValueError as exc:
        raise ConfigurationError(f"ALLOWED_PRIVATE_HOSTS is wrong: {exc}") from exc
    outgoing = Outgoing(guard, Proxies(config.proxies), config.timings)
    carrier = Carrier(outgoing, config.timings, config.max_download_bytes)
    store = config.output_store
    file = FileStorage(_folder(store) if store.startswith("file:") else None, config.max_download_bytes)
    bucket = store.partition("://")[2].partition("/")[0]
    own_bucket = bucket if store.startswith("nats:") else None
    nats = NatsObjectStorage(own_bucket, objects, config.timings, config.max_download_bytes)
    s3 = S3Storage(carrier, config.s3, store if store.startswith("s3:") else None)
    azure = AzureBlobStorage(carrier, account, store if store.startswith("http") else None)
    process = HubProcess(config.timings, config.proxies)
    hub = HuggingFaceStorage(carrier, config.hugging_face, process, config.timings, config.max_download_bytes)
    everything = (s3, hub, azure, file, nats, HttpStorage(carrier, config))
    return Backends(everything, outgoing, account.url if account else None)


def _endpoints(config: StorageConfig, account: AzureAccount | None) -> list[str]:
    """URLs whose host and port may be reached wherever they are."""
    azure = account.url if account else None
    return [url for url in (config.s3.endpoint_url, azure, config.hugging_face.endpoint) if url]


def _folder(store: str) -> Path:
    try:
        return file_path(store)
    except Fault as exc:
        raise ConfigurationError(f"OUTPUT_STORE={store} is wrong: {exc.reason}") from exc

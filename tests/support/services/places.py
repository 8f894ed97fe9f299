"""One place for each backend that a contract test can use without knowing which it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from app.storage.config import AzureConfig, HuggingFaceConfig, S3Config, Timings
from app.storage.file import file_url
from schemas.credentials import BearerAuth, Credential
from tests.support.services.azurite import ACCOUNT, Azurite
from tests.support.services.hub import Hub
from tests.support.services.web_files import SECRET, WebFiles
from tests.support.services.weed import Weed

# Quick, but not so quick that a busy machine looks like a stalled server.
TIMINGS = Timings(connect_s=5, answer_s=20, stall_s=20, tries=4, first_delay_s=0.02, longest_delay_s=0.1)


@dataclass
class Access:
    """How to get at a place: settings, and what a request sends along."""

    settings: dict[str, Any] = field(default_factory=dict)
    credentials: Sequence[Credential] | None = None


class Place(ABC):
    """A server, how to reach it by our code, and how to look into it past our code."""

    name: str
    port: int | None = None
    """Of its HTTP, for a proxy that breaks it; None if it has none."""
    part_bytes = 4 * 1024 * 1024
    """A size from which on it stores files in parts, or large enough where it does not."""

    @abstractmethod
    def access(self, base: str | None = None) -> Access:
        """Settings that work; ``base`` is the URL of a proxy before the server."""

    @abstractmethod
    def url(self, name: str, base: str | None = None) -> str:
        """The URL of a file."""

    @abstractmethod
    def wrong(self) -> tuple[Access, str]:
        """Credentials that are wrong, and the URL to use them for."""

    @abstractmethod
    def nowhere(self) -> str:
        """A URL in a bucket, container, repository or folder that does not exist."""


class WebPlace(Place):
    """A plain web server."""

    name = "http"

    def __init__(self, files: WebFiles) -> None:
        self.files = files
        self.port = files.port

    def access(self, base: str | None = None) -> Access:
        return Access({"allowed_private_hosts": ("127.0.0.1",)})

    def url(self, name: str, base: str | None = None) -> str:
        return f"{base or self.files.url}/open/{quote(name, safe='')}"

    def wrong(self) -> tuple[Access, str]:
        auth = BearerAuth(type="bearer", token="no" + SECRET)
        credentials = [Credential(url_pattern="http://127.0.0.1:*/**", auth=auth)]
        return Access(self.access().settings, credentials), f"{self.files.url}/closed/x.bin"

    def nowhere(self) -> str:
        return f"{self.files.url}/nowhere/x.bin"


class S3Place(Place):
    """SeaweedFS, that checks signatures."""

    name = "s3"
    part_bytes = 20 * 1024 * 1024

    def __init__(self, weed: Weed) -> None:
        self.weed = weed
        self.port = int(weed.url.rpartition(":")[2])

    def access(self, base: str | None = None) -> Access:
        return Access({"s3": S3Config(base or self.weed.url, self.weed.region, self.weed.key, self.weed.secret)})

    def url(self, name: str, base: str | None = None) -> str:
        return f"s3://{self.weed.bucket}/{name}"

    def wrong(self) -> tuple[Access, str]:
        config = S3Config(self.weed.url, self.weed.region, self.weed.key, self.weed.secret + "x")
        return Access({"s3": config}), self.url("x.bin")

    def nowhere(self) -> str:
        return "s3://nowhere/x.bin"


class AzurePlace(Place):
    """Azurite."""

    name = "azure"
    part_bytes = 20 * 1024 * 1024

    def __init__(self, azurite: Azurite) -> None:
        self.azurite = azurite
        self.port = int(azurite.url.rpartition(":")[2])

    def access(self, base: str | None = None) -> Access:
        return Access({"azure": AzureConfig(self.azurite.connection_string(url=base))})

    def url(self, name: str, base: str | None = None) -> str:
        return f"{base or self.azurite.url}/{ACCOUNT}/{self.azurite.container}/{quote(name, safe='')}"

    def wrong(self) -> tuple[Access, str]:
        config = AzureConfig(self.azurite.connection_string(key="d3Jvbmcga2V5"))
        return Access({"azure": config}), self.url("x.bin")

    def nowhere(self) -> str:
        return f"{self.azurite.url}/{ACCOUNT}/nowhere/x.bin"


class HubPlace(Place):
    """The double of the Hub; with LFS or with Xet behind it."""

    def __init__(self, hub: Hub, name: str) -> None:
        self.hub = hub
        self.name = name
        self.port = hub.port
        hub.create("models", "u/r")

    def access(self, base: str | None = None) -> Access:
        # The double's CDN is this machine under another name.
        hosts = ("localhost",)
        return Access(
            {"hugging_face": HuggingFaceConfig(self.hub.token, base or self.hub.url), "allowed_private_hosts": hosts}
        )

    def url(self, name: str, base: str | None = None) -> str:
        return f"{base or self.hub.url}/u/r/resolve/main/{quote(name, safe='')}"

    def wrong(self) -> tuple[Access, str]:
        return Access({"hugging_face": HuggingFaceConfig("hf_wrong0123456789abcdefgh", self.hub.url)}), self.url(
            "x.bin"
        )

    def nowhere(self) -> str:
        return f"{self.hub.url}/u/nowhere/resolve/main/x.bin"


class FilePlace(Place):
    """A folder."""

    name = "file"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def access(self, base: str | None = None) -> Access:
        return Access({"output_store": file_url(self.folder)})

    def url(self, name: str, base: str | None = None) -> str:
        return file_url(self.folder / name)

    def wrong(self) -> tuple[Access, str]:
        # There are no credentials: the folder of the settings is the permission.
        return Access({}), self.url("x.bin")

    def nowhere(self) -> str:
        return file_url(self.folder.parent / "elsewhere" / "x.bin")


class NatsPlace(Place):
    """An object bucket."""

    name = "nats"

    def __init__(self, objects: Any) -> None:
        self.objects = objects

    def access(self, base: str | None = None) -> Access:
        return Access({"output_store": f"nats://{self.objects.bucket}"})

    def url(self, name: str, base: str | None = None) -> str:
        return f"nats://{self.objects.bucket}/{name}"

    def wrong(self) -> tuple[Access, str]:
        return Access({}), self.url("x.bin")

    def nowhere(self) -> str:
        return "nats://elsewhere/x.bin"

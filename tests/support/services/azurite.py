"""An Azure Blob server: Azurite from npm, run as node's own process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.services.process import free_ports, need, run_server

FOLDER = Path(__file__).parents[2] / "azurite"
ACCOUNT = "devstoreaccount1"
# The account that every Azurite has, as Microsoft publishes it.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True)
class Azurite:
    """A running blob server with one container."""

    url: str
    pid: int
    container: str = "artifacts"

    def connection_string(self, key: str = KEY, url: str | None = None) -> str:
        """For the server, or for a proxy before it."""
        endpoint = f"BlobEndpoint={url or self.url}/{ACCOUNT}"
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};{endpoint};"


@contextmanager
def run_azurite(folder: Path) -> Iterator[Azurite]:
    """Run a fresh server with one container."""
    node = shutil.which("node")
    program = FOLDER / "node_modules/azurite/dist/src/blob/main.js"
    need(node and program.is_file(), "no Azure Blob server: run `npm ci` in tests/azurite (needs node)")
    [port] = free_ports(1)
    args = [str(node), str(program), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    # Its telemetry is on by default and would report to the vendor.
    args += ["--location", str(folder), "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    with run_server(args, folder / "azurite.log", port) as pid:
        server = Azurite(f"http://127.0.0.1:{port}", pid)
        _create_container(server)
        yield server


def _create_container(server: Azurite) -> None:
    from azure.storage.blob import BlobServiceClient

    with BlobServiceClient.from_connection_string(server.connection_string(), use_env_settings=False) as client:
        client.create_container(server.container)

"""TLS between worker and NATS, with certificates made for the occasion."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from brokers.base import BrokerUnavailable
from brokers.embedded import run_embedded
from brokers.nats import NatsBus, NatsConfig

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates"),
]


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """An authority, and certificates of a server on loopback and of a client."""

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=tmp_path)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority")
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "client"):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed_by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed_by)
    return tmp_path


async def test_both_sides_are_known_by_their_certificates(certificates: Path) -> None:
    """With all three files the worker is in; without its own, or without the authority, the sentence says why not."""
    files = {name: str(certificates / name) for name in ("server.pem", "server.key", "ca.pem")}
    extra = (
        f'tls {{ cert_file: "{files["server.pem"]}", key_file: "{files["server.key"]}", '
        f'ca_file: "{files["ca.pem"]}", verify: true }}'
    )
    async with run_embedded(certificates / "nats", extra=extra) as server:
        address = (server.url.replace("nats://", "tls://"),)
        own = {"tls_cert": certificates / "client.pem", "tls_key": certificates / "client.key"}
        async with NatsBus(NatsConfig(address, tls_ca=certificates / "ca.pem", **own)).open() as bus:
            assert bus.health().ok
        for config, reason in (
            (NatsConfig(address, tls_ca=certificates / "ca.pem", first_connection_s=0.5), "certificate required"),
            (NatsConfig(address, **own, first_connection_s=0.5), "verify failed"),
        ):
            with pytest.raises(BrokerUnavailable, match=reason):
                async with NatsBus(config).open():
                    pass

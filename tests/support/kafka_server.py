"""A real Apache Kafka, one KRaft node from Maven Central's jars: started on loopback, killed, and back with its state.

One process serves a whole test session, since a JVM is heavy; tests keep apart by their topic prefix. It has a listener
for direct connections, one that is advertised at a proxy's port, and one each for TLS and for SASL.
``KAFKA_BOOTSTRAP_SERVERS`` names an existing broker instead; tests that kill or cut it are then skipped.
"""

from __future__ import annotations

import atexit
import base64
import fcntl
import os
import shutil
import subprocess
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tests.support.processes import Process, free_port, launch

VERSION = os.environ.get("KAFKA_VERSION", "4.1.1")
SERVICES = Path(__file__).parents[2] / ".services"
EXISTING = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")
READY_WITHIN_S = 180.0
# The stranger is let in and allowed nothing.
USER, STRANGER, PASSWORD = "worker", "stranger", "pass-wörd"

# 3.x logs through slf4j and Log4j 1's successor, 4.x through Log4j 2; neither brings a back-end.
LOGGING = {
    "3": [("org.slf4j", "slf4j-reload4j", "1.7.36")],
    "4": [
        ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.24.3"),
        ("org.apache.logging.log4j", "log4j-core", "2.24.3"),
    ],
}
LOG4J2 = """
status = error
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss,SSS} %p %c{1} %m%n
"""
LOG4J1 = """
log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d{HH:mm:ss,SSS} %p %c{1} %m%n
"""


def why_not() -> str:
    """Why no Kafka can be started here; empty when one can."""
    if EXISTING:
        return ""
    missing = [name for name in ("java", "mvn") if shutil.which(name) is None]
    return (
        f"no Apache Kafka: {' and '.join(missing)} not found, and KAFKA_BOOTSTRAP_SERVERS is not set" if missing else ""
    )


def require_kafka(*, own: bool = False) -> None:
    """Skip the test where there is no Kafka, with the reason; with CI=true it fails instead.

    Args:
        own: The test kills or cuts the broker, so it must be one of ours.
    """
    reason = why_not()
    if not reason and own and EXISTING:
        reason = "the broker of KAFKA_BOOTSTRAP_SERVERS is not ours to kill"
    if not reason:
        return
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def jars() -> Path:
    """The folder with Kafka's jars, filled by Maven at the first call and kept in the repository's ``.services``."""
    folder = SERVICES / f"kafka-{VERSION}"
    libs = folder / "libs"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        # Tests run in several processes; one of them fetches the jars, the others wait for them.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            _fetch_jars(folder, libs)
    return libs


def _fetch_jars(folder: Path, libs: Path) -> None:
    wanted = [("org.apache.kafka", "kafka_2.13", VERSION), *LOGGING[VERSION[0]]]
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
        for group, name, version in wanted
    )
    (folder / "pom.xml").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>test</groupId><artifactId>kafka</artifactId>"
        f"<version>1</version><dependencies>{dependencies}</dependencies></project>"
    )
    command = ["mvn", "-q", "-B", "-f", str(folder / "pom.xml"), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={libs}"]
    subprocess.run(command, check=True, timeout=600)
    (folder / "complete").touch()


@dataclass
class KafkaServer:
    """One node that can be killed and comes back at its addresses with its state."""

    folder: Path
    port: int = field(default_factory=free_port)
    wires: tuple[tuple[int, int], ...] = field(default_factory=lambda: tuple((free_port(), free_port()) for _ in "12"))
    """Listeners that clients know by the port of a proxy only: the port of each, and of its proxy."""
    tls_port: int = field(default_factory=free_port)
    sasl_port: int = field(default_factory=free_port)
    controller_port: int = field(default_factory=free_port)
    extra: dict[str, str] = field(default_factory=dict)
    process: Process | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def authority(self) -> Path:
        """The certificate that the TLS listener's own is signed by (itself)."""
        return self.folder / "tls.crt"

    @property
    def properties(self) -> dict[str, str]:
        ports = {
            "PLAINTEXT": self.port,
            **{f"WIRE{number}": port for number, (port, _) in enumerate(self.wires)},
            "TLS": self.tls_port,
            "SASL": self.sasl_port,
            "CONTROLLER": self.controller_port,
        }
        seen = ports | {f"WIRE{number}": proxy for number, (_, proxy) in enumerate(self.wires)}
        users = " ".join(f'user_{name}="{PASSWORD}"' for name in (USER, STRANGER))
        jaas = f'username="{USER}" password="{PASSWORD}" {users};'
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items()),
            "advertised.listeners": ",".join(
                f"{name}://127.0.0.1:{port}" for name, port in seen.items() if name != "CONTROLLER"
            ),
            "listener.security.protocol.map": ",".join(
                f"{name}:{ {'TLS': 'SSL', 'SASL': 'SASL_PLAINTEXT'}.get(name, 'PLAINTEXT') }" for name in ports
            ),
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.name.tls.ssl.keystore.type": "PEM",
            "listener.name.tls.ssl.keystore.location": str(self.folder / "tls.pem"),
            "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.sasl.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule "
            f"required {jaas}",
            "listener.name.sasl.scram-sha-256.sasl.jaas.config": "org.apache.kafka.common.security.scram."
            "ScramLoginModule required;",
            "listener.name.sasl.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram."
            "ScramLoginModule required;",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:ANONYMOUS;User:{USER};User:CN=127.0.0.1",
            "log.dirs": str(self.folder / "logs"),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # Leases of a second, and transactions of the dead ended soon, so that tests need not wait for minutes.
            "group.min.session.timeout.ms": "500",
            "group.initial.rebalance.delay.ms": "0",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
            # A broker killed without a word may register again when its session has ended.
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "200",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "num.recovery.threads.per.data.dir": "2",
            "log.cleaner.enable": "false",
            **self.extra,
        }

    def _java(self, main: str, *arguments: str) -> list[str]:
        heap = ["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        logging = [
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}",
            f"-Dlog4j.configuration=file:{self.folder / 'log4j.properties'}",
        ]
        return ["java", *heap, *logging, "-cp", f"{jars()}/*", main, *arguments]

    def _prepare(self) -> None:
        """Files, certificate and the formatted log directory; once."""
        if (self.folder / "logs").exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "log4j2.properties").write_text(LOG4J2)
        (self.folder / "log4j.properties").write_text(LOG4J1)
        config = self.folder / "server.properties"
        # Java reads properties as Latin-1 with \u escapes.
        lines = [f"{name}={value}" for name, value in self.properties.items()]
        config.write_bytes("\n".join(lines).encode("ascii", "backslashreplace").replace(b"\\x", b"\\u00"))
        key, certificate = self.folder / "tls.key", self.authority
        openssl = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
        openssl += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(openssl, check=True, timeout=30, capture_output=True)
        (self.folder / "tls.pem").write_text(key.read_text() + certificate.read_text())
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
        scram = [f"--add-scram={kind}=[name={USER},password={PASSWORD}]" for kind in ("SCRAM-SHA-256", "SCRAM-SHA-512")]
        command = self._java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(config), *scram)
        done = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def launch(self) -> None:
        """Start the process without waiting until it answers."""
        self._prepare()
        command = self._java("kafka.Kafka", str(self.folder / "server.properties"))
        self.process = launch(command, self.folder / "kafka.log")

    async def start(self) -> None:
        """Start it and wait until it answers and knows its coordinators."""
        await anyio.to_thread.run_sync(self.launch)
        assert self.process is not None
        with anyio.fail_after(READY_WITHIN_S):
            while not await answers(self.bootstrap):
                assert self.process.running, self.process.tail()
                await anyio.sleep(0.1)

    async def kill(self) -> None:
        assert self.process is not None
        await self.process.kill()

    def end(self) -> None:
        """Kill the process, for the end of the session."""
        if self.process is not None and self.process.running:
            self.process.popen.kill()
            self.process.popen.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)


async def answers(bootstrap: str) -> bool:
    """Whether a broker serves requests and groups at this address."""
    host, _, port = bootstrap.partition(",")[0].rpartition(":")
    try:
        stream = await anyio.connect_tcp(host, int(port))
        await stream.aclose()
    except OSError:
        return False
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5000)
    try:
        await client.start()
        await client.find_coordinator("readiness-probe")
        await client.find_coordinator("readiness-probe", 1)
    except (KafkaError, OSError, TimeoutError):
        return False
    finally:
        await client.close()
    return True


_shared: list[KafkaServer] = []


@dataclass
class Kafka:
    """The session's broker as one test has it, under a prefix of its own.

    It looks like a server of the test's own, but outlives it: ``process`` is always None, so that nobody who ends his
    processes ends this one.
    """

    prefix: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:10]}")
    process: None = None

    @property
    def server(self) -> KafkaServer:
        return _shared[0]

    @property
    def bootstrap(self) -> str:
        return EXISTING or self.server.bootstrap

    @property
    def url(self) -> str:
        """As ``BROKER_URL`` has it."""
        return f"kafka://{self.bootstrap}"

    async def start(self) -> None:
        """Start the session's broker, or bring it back after a kill."""
        if EXISTING:
            return
        if not _shared:
            _shared.append(KafkaServer(Path(tempfile.mkdtemp(prefix="kafka-"))))
            atexit.register(_shared[0].end)
        server = self.server
        if server.process is None or not server.process.running:
            await server.start()

    async def kill(self) -> None:
        """kill -9 of the broker."""
        await self.server.kill()

    async def forget(self) -> None:
        """Delete the test's topics, so that the broker stays quick to restart."""
        client = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            await client.start()
            beginnings = (f"{self.prefix}.", f"{self.prefix}-")
            if ours := [name for name in await client.list_topics() if name.startswith(beginnings)]:
                await client.delete_topics(ours)
        finally:
            await client.close()

"""Apache Kafka for tests: one KRaft node on free loopback ports that may be killed, paused and restarted.

`python -m tests.brokers.kafka` makes ready what starts need; with a folder it also runs a broker there until Ctrl-C.
"""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.brokers import installation
from tests.brokers.certificates import Certificates, make_certificates
from tests.brokers.guard import Guard
from tests.harness import free_ports, wait_for

USER, PASSWORD = "bridge", "bridge-secret"
READY_MAX_S = 120.0
STOP_MAX_S = 15.0

# Small, quick to start, quick to notice: what a test would otherwise wait minutes for happens within a second.
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": (
        "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,SASLTLS:SASL_SSL"
    ),
    # After a SIGKILL a node may come back only when its session has ended.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "2",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "2",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    "group.min.session.timeout.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    "log.initial.task.delay.ms": "500",
    "log.retention.check.interval.ms": "500",
    "log.segment.delete.delay.ms": "200",
    "log.cleaner.backoff.ms": "200",
    "log.cleaner.dedupe.buffer.size": "8388608",
    "log.index.size.max.bytes": "1048576",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
    "ssl.keystore.type": "PEM",
    "ssl.truststore.type": "PEM",
    "listener.name.tls.ssl.client.auth": "required",
}
LOGIN = {
    "plain": f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
    "scram-sha-256": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
    "scram-sha-512": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
    # Takes any unsigned token that has not expired: Kafka's own module for trying out.
    "oauthbearer": "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;",
}


@dataclass(frozen=True)
class Endpoints:
    """Where a broker listens, each as host:port; all but `bootstrap` only where it is Apache Kafka started here."""

    bootstrap: str
    """Without TLS or user."""
    sasl: str = ""
    """PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 for USER and PASSWORD, OAUTHBEARER with unsigned tokens; without TLS."""
    tls: str = ""
    """TLS with a client's certificate."""
    sasl_tls: str = ""
    """TLS without a client's certificate, and the mechanisms of `sasl`."""
    folder: str = ""

    @property
    def certificates(self) -> Certificates:
        """Return the paths of the authority's, and a client's, PEM files."""
        return Certificates.of(Path(self.folder) / "certificates")


class KafkaBroker:
    """One node of Apache Kafka with a folder of its own; ends with the process that started it, however that ends."""

    def __init__(self, folder: Path, *, settings: Mapping[str, str] | None = None) -> None:
        """Choose ports and write certificates and settings (`settings` go over SETTINGS); nothing is started yet."""
        self.folder = folder
        self.log_path = folder / "kafka.log"
        self.data = folder / "data"
        self.file = folder / "server.properties"
        self.process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        folder.mkdir(parents=True, exist_ok=True)
        certificates = make_certificates(folder / "certificates")
        names = ("PLAINTEXT", "SASL", "TLS", "SASLTLS", "CONTROLLER")
        at = {name: f"127.0.0.1:{port}" for name, port in zip(names, free_ports(len(names)), strict=True)}
        self.endpoints = Endpoints(at["PLAINTEXT"], at["SASL"], at["TLS"], at["SASLTLS"], str(folder))
        lines = SETTINGS | {
            "listeners": ",".join(f"{name}://{address}" for name, address in at.items()),
            "controller.quorum.voters": f"1@{at['CONTROLLER']}",
            "log.dirs": str(self.data),
            "ssl.keystore.location": str(certificates.broker),
            "ssl.truststore.location": str(certificates.ca),
        }
        for listener in ("sasl", "sasltls"):
            lines |= {f"listener.name.{listener}.{name}.sasl.jaas.config": module for name, module in LOGIN.items()}
        self.file.write_text("".join(f"{k}={v}\n" for k, v in (lines | dict(settings or {})).items()))

    @property
    def bootstrap(self) -> str:
        return self.endpoints.bootstrap

    def start(self) -> "KafkaBroker":
        """Start it on its ports and what data it has; returns once it serves clients."""
        assert not self.is_running(), "already running"
        make_ready()
        if not self.data.exists():
            installation.format_storage(self.data)
        self._reap()
        before = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                installation.server(self.file),
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._guard = Guard(self.folder, self.process.pid)
        try:
            wait_for(lambda: self._has_started(before), READY_MAX_S, "Kafka has started")
        except BaseException as error:
            self.kill()
            if isinstance(error, AssertionError):
                raise AssertionError(f"{error}\n{self.log_tail()}") from None
            raise
        return self

    def stop(self) -> None:
        """SIGTERM, as an operator would; SIGKILL when it has not ended within STOP_MAX_S."""
        if self.is_running():
            assert self.process is not None
            self.resume()
            self.process.terminate()
            try:
                self.process.wait(STOP_MAX_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self._reap()

    def kill(self) -> None:
        """SIGKILL: nothing is closed or said to clients."""
        if self.is_running():
            assert self.process is not None
            self.process.kill()
        self._reap()

    def restart(self) -> "KafkaBroker":
        """Stop it if it runs, and start it on the same ports and data."""
        self.stop()
        return self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def leave(self) -> None:
        """Leave it running for those who `use` its folder; it ends with the last of them."""
        assert self._guard is not None
        self._guard.leave()

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log_tail(self, lines: int = 40) -> str:
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _has_started(self, offset: int) -> bool:
        """Look for Kafka's own word in the log behind `offset`: its listeners open after it."""
        assert self.process is not None
        ended = self.process.poll()
        with self.log_path.open("rb") as log:
            log.seek(offset)
            started = installation.STARTED.encode() in log.read()
        assert started or ended is None, f"Kafka ended with {ended}"
        return started

    def _reap(self) -> None:
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None
        if self.process is not None:
            self.process.wait()


def make_ready() -> None:
    """Do once what every start profits from (`installation.prepare`)."""
    if installation.is_prepared():
        return
    with tempfile.TemporaryDirectory() as folder:
        model = KafkaBroker(Path(folder))
        users = [f"SCRAM-SHA-{bits}=[name={USER},password={PASSWORD}]" for bits in (256, 512)]
        installation.prepare(model.file, model.data, users)


if __name__ == "__main__":
    if installation.installed():
        make_ready()
    if len(sys.argv) > 1:
        broker = KafkaBroker(Path(sys.argv[1]).absolute()).start()
        print(broker.endpoints, flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            broker.stop()

"""What stands in for Apache Kafka where Java or Maven Central cannot be had: the Kafka side of noida-db.

Without TLS, SASL, and expulsion of dead members; what it has not had for a second is lost when it is killed.
"""

import importlib.util
import socket
import subprocess
from pathlib import Path

from tests.brokers.guard import Guard
from tests.brokers.kafka import Endpoints
from tests.harness import WAIT_MAX_S, free_ports, wait_for


class StandIn:
    """One noida-db; ends with the process that started it."""

    def __init__(self, folder: Path) -> None:
        """Choose a port; nothing is started yet."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_ports(1)[0]
        self.endpoints = Endpoints(f"127.0.0.1:{self.port}")

    def start(self) -> "StandIn":
        """Start it; returns once it takes connections."""
        found = importlib.util.find_spec("noida_db")
        assert found is not None and found.origin is not None
        program = Path(found.origin).parent / "noida-db"
        with (self.folder / "noida.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "start", "--data-dir", "data", "--only", "kafka", "--kafka-port", str(self.port)],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._guard = Guard(self.folder, self._process.pid)
        wait_for(self._listens, description="noida-db listens")
        return self

    def stop(self) -> None:
        """SIGTERM: what it has is saved."""
        self._process.terminate()
        self._process.wait(WAIT_MAX_S)
        self._guard.dismiss()

    def leave(self) -> None:
        """Leave it running for those who `use` its folder; it ends with the last of them."""
        self._guard.leave()

    def _listens(self) -> bool:
        assert self._process.poll() is None, (self.folder / "noida.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

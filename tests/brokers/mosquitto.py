"""Mosquitto for tests: a broker on free loopback ports that may be stopped, killed, paused and restarted on its data."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.brokers.certificates import Certificates, make_certificates
from tests.brokers.guard import Guard
from tests.harness import WAIT_MAX_S, free_ports, wait_for

HOW_TO_GET_IT = "requirements/apt.sh mosquitto:mosquitto mosquitto-clients:mosquitto_pub brings it (make mqtt)"
USER, PASSWORD = "bridge", "bridge-secret"
READY_MAX_S = 60.0
STOP_MAX_S = 15.0
PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
"""Debian's mosquitto lies where daemons lie, which is not on every user's path."""


def program(name: str = "mosquitto") -> str | None:
    """Return where a program of mosquitto is, None without it."""
    return shutil.which(name, path=PATH)


def is_installed() -> bool:
    return all(map(program, ("mosquitto", "mosquitto_pub", "mosquitto_passwd")))


@dataclass(frozen=True)
class MqttEndpoints:
    """Where a broker listens, as URLs."""

    url: str
    """Without TLS or user."""
    user: str
    """For USER and PASSWORD alone."""
    tls: str
    """TLS without a client's certificate or user."""
    mutual: str
    """TLS with a client's certificate."""


class MosquittoBroker:
    """One mosquitto with a folder of its own; ends with the process that started it, however that ends."""

    def __init__(self, folder: Path, *, settings: Mapping[str, str] | None = None) -> None:
        """Choose ports and write certificates and settings (`settings` go over what is usual here); nothing starts yet.

        Nothing is dropped (max_queued_messages 0), sessions and messages are kept on disk, and written every second.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log_path = folder / "mosquitto.log"
        self.file = folder / "mosquitto.conf"
        self.certificates: Certificates = make_certificates(folder / "certificates")
        self.ports = free_ports(4)
        at = [f"127.0.0.1:{port}" for port in self.ports]
        self.endpoints = MqttEndpoints(f"mqtt://{at[0]}", f"mqtt://{at[1]}", f"mqtts://{at[2]}", f"mqtts://{at[3]}")
        self.process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        lines = {
            "per_listener_settings": "true",
            "log_dest": "stderr",
            "log_type": "all",
            "max_queued_messages": "0",
            "autosave_interval": "1",
            "sys_interval": "1",
        } | dict(settings or {})
        self.file.write_text("".join(f"{key} {value}\n" for key, value in lines.items()) + self._listeners())

    def _listeners(self) -> str:
        data, passwords, files = self.folder / "data", self.folder / "passwords", self.certificates
        data.mkdir(mode=0o777, exist_ok=True)
        command = [program("mosquitto_passwd") or "mosquitto_passwd", "-b", "-c", str(passwords), USER, PASSWORD]
        subprocess.run(command, check=True, capture_output=True)
        owner = "user root\n" if os.geteuid() == 0 else ""
        kept = f"persistence true\npersistence_location {data}/\n"
        tls = f"cafile {files.ca}\ncertfile {files.broker}\nkeyfile {files.broker}\n"
        plain, secret, secured, mutual = (f"\nlistener {port} 127.0.0.1\n" for port in self.ports)
        return (
            f"{owner}{kept}{plain}allow_anonymous true\n"
            f"{secret}allow_anonymous false\npassword_file {passwords}\n"
            f"{secured}allow_anonymous true\n{tls}"
            f"{mutual}allow_anonymous true\n{tls}require_certificate true\n"
        )

    @property
    def url(self) -> str:
        return self.endpoints.url

    @property
    def port(self) -> int:
        """Of the listener without TLS or user."""
        return self.ports[0]

    def start(self) -> "MosquittoBroker":
        """Start it on its ports and what data it has; returns once it serves clients."""
        assert not self.is_running(), "already running"
        self._reap()
        begin = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [program() or "mosquitto", "-c", str(self.file)],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._guard = Guard(self.folder, self.process.pid)
        try:
            wait_for(lambda: self._has_started(begin), READY_MAX_S, "mosquitto has started")
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{error}\n{self.log_tail()}") from None
        return self

    def _has_started(self, begin: int) -> bool:
        assert self.process is not None
        ended = self.process.poll()
        assert ended is None, f"mosquitto ended with {ended}"
        return b" running" in self.log_path.read_bytes()[begin:]

    def stop(self) -> None:
        """SIGTERM, as an operator would: what it has is written to disk."""
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
        """SIGKILL: nothing is written or said to clients."""
        if self.is_running():
            assert self.process is not None
            self.process.kill()
        self._reap()

    def restart(self) -> "MosquittoBroker":
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
        """Leave it running for those who use its folder; it ends with the last of them."""
        assert self._guard is not None
        self._guard.leave()

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def clients(self) -> set[str]:
        """Return the ids of the clients that are connected, as its log has it."""
        present = set[str]()
        for line in self.log().splitlines():
            if found := re.search(r"New client connected from \S+ as (\S+) ", line):
                present.add(found[1])
            elif found := re.search(r"Client (\S+) (?:disconnected|closed its connection|has exceeded timeout)", line):
                present.discard(found[1])
            elif " running" in line:
                present.clear()
        return present

    def publish(
        self, topic: str, *payloads: bytes | str, qos: int = 1, arguments: Sequence[str] = (), version: str = "5"
    ) -> None:
        """Publish with mosquitto_pub, as a device would; one payload a line where there are several."""
        command = [
            program("mosquitto_pub") or "mosquitto_pub", "-h", "127.0.0.1", "-p", str(self.port), "-q", str(qos),
            "-V", version, "-t", topic, *arguments,
        ]  # fmt: skip
        data = [payload if isinstance(payload, bytes) else payload.encode() for payload in payloads]
        lines = len(data) > 1
        done = subprocess.run(
            [*command, "-l" if lines else "-s" if any(data) else "-n"],
            input=b"".join(each + b"\n" for each in data) if lines else b"".join(data),
            capture_output=True, timeout=WAIT_MAX_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()

    def _reap(self) -> None:
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None
        if self.process is not None:
            self.process.wait()

"""Emulators of AWS as processes of the tests: ministack, moto server and kinesis-local, as requirements/services.sh brings them."""

import abc
import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from tests.brokers.guard import Guard
from tests.brokers.kafka import free_ports
from tests.harness import POLL_S, ROOT

HOW_TO_GET_IT = "requirements/services.sh .venv/share brings it (make aws)"
READY_MAX_S = 60.0
STOP_MAX_S = 5.0
START_TRIES = 5
"""A port that was free may be taken by the time that a process listens on it."""


def installed(file: str) -> Path | None:
    """Return what requirements/services.sh has brought under this name; None without it."""
    for prefix in (Path(sys.prefix), ROOT / ".venv"):
        if (found := prefix / "share" / file).exists():
            return found
    return None


def awscli() -> Path | None:
    return installed("aws/bin/aws")


class Emulator(abc.ABC):
    """One process with a folder of its own; ends with the process that started it, however that ends."""

    name: ClassVar[str]
    account: ClassVar[str]
    probe: ClassVar[str]
    """A path that is answered, with whatever status, once it serves."""

    def __init__(self, folder: Path, *, settings: Mapping[str, str] | None = None) -> None:
        """Nothing is started yet; `settings` are environment variables over its own."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log_path = folder / f"{self.name}.log"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = dict(settings or {})
        self._guard: Guard | None = None

    @classmethod
    @abc.abstractmethod
    def is_installed(cls) -> bool: ...

    @abc.abstractmethod
    def command(self) -> list[str]: ...

    @abc.abstractmethod
    def environment(self) -> dict[str, str]: ...

    def working_folder(self) -> Path:
        return self.folder

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "Emulator":
        """Start it, on the port that it had before if it had one; returns once it answers."""
        assert not self.is_running(), "already running"
        fixed = self.port
        for _ in range(START_TRIES):
            self._reap()
            self.port = fixed or free_ports(1)[0]
            self._spawn()
            try:
                if self._answers_in_time():
                    return self
            except BaseException:
                self.kill()
                raise
        raise AssertionError(f"{self.name} does not start:\n{self.log_tail()}")

    def stop(self) -> None:
        """SIGTERM, then SIGKILL for what is left of its process group: ministack leaves children behind."""
        if self.is_running():
            assert self.process is not None
            self.resume()
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_MAX_S)
            self._kill_group()  # at once: nobody else has the number of its group yet
        self._reap()

    def kill(self) -> None:
        """SIGKILL for it and its children."""
        if self.is_running():
            self._kill_group()
        self._reap()

    def _kill_group(self) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def restart(self) -> "Emulator":
        """Stop it if it runs, and start it on the same port; what it had in memory is gone."""
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

    def _spawn(self) -> None:
        temporary = self.folder / "tmp"  # ministack leaves folders of functions there
        temporary.mkdir(exist_ok=True)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PYTHON"))}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.working_folder(),
                env=clean | {"TMPDIR": str(temporary)} | self.environment() | self._settings,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._guard = Guard(self.folder, self.process.pid)

    def _answers_in_time(self) -> bool:
        """Say whether it answers; it does not when it has ended, as on a port that somebody else took."""
        deadline = time.monotonic() + READY_MAX_S
        while self.is_running():
            if self._answers():
                return self.is_running()
            assert time.monotonic() < deadline, f"{self.name} not within {READY_MAX_S:g} s:\n{self.log_tail()}"
            time.sleep(5 * POLL_S)
        return False

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", self.probe)
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return False
        else:
            return True
        finally:
            connection.close()

    def _reap(self) -> None:
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None
        if self.process is not None:
            self.process.wait()


class Ministack(Emulator):
    """SQS, SNS, S3, DynamoDB and its streams, EventBridge, Lambda, KMS, STS and more; Kinesis without resharding.

    Its Lambda takes 55 ms a call and gives every error the type Runtime.HandlerError.
    """

    name = "ministack"
    account = "000000000000"
    probe = "/_ministack/health"

    @classmethod
    def is_installed(cls) -> bool:
        return installed("aws/bin/ministack") is not None

    def command(self) -> list[str]:
        return [str(installed("aws/bin/python")), str(installed("aws/bin/ministack"))]

    def environment(self) -> dict[str, str]:
        # Its broker for IoT listens on a port of its own, the same one for every instance.
        return {
            "GATEWAY_PORT": str(self.port), "BIND_HOST": "127.0.0.1", "LOG_LEVEL": "WARNING",
            "IOT_MTLS_ENABLED": "0", "SFTP_ENABLED": "0",
        }  # fmt: skip


class Moto(Emulator):
    """The second opinion on the shape of answers; slow, and without Lambda."""

    name = "moto"
    account = "123456789012"
    probe = "/moto-api/"

    @classmethod
    def is_installed(cls) -> bool:
        return installed("aws/bin/moto_server") is not None

    def command(self) -> list[str]:
        return [
            str(installed("aws/bin/python")), str(installed("aws/bin/moto_server")),
            "-H", "127.0.0.1", "-p", str(self.port),
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        return {}


class KinesisLocal(Emulator):
    """Kinesis with splits and merges as on AWS: parents stay listed, closed, and are read to their end."""

    name = "kinesis-local"
    account = "000000000000"
    probe = "/healthcheck"

    @classmethod
    def is_installed(cls) -> bool:
        return installed("kinesis/main.js") is not None and shutil.which("node") is not None

    def command(self) -> list[str]:
        return ["node", "main.js"]

    def working_folder(self) -> Path:
        found = installed("kinesis")  # it reads its certificate from there
        assert found is not None
        return found

    def environment(self) -> dict[str, str]:
        # It wants a port for TLS, too. What takes a moment on AWS takes one here.
        moment = {
            f"{what}_DURATION": "100ms"
            for what in ("CREATE_STREAM", "DELETE_STREAM", "MERGE_SHARDS", "SPLIT_SHARD", "UPDATE_SHARD_COUNT")
        }
        return moment | {
            "KINESIS_MOCK_PLAIN_PORT": str(self.port), "KINESIS_MOCK_TLS_PORT": str(free_ports(1)[0]),
            "LOG_LEVEL": "ERROR", "SHARD_LIMIT": "1000",
        }  # fmt: skip


EMULATORS: dict[str, type[Emulator]] = {each.name: each for each in (Ministack, Moto, KinesisLocal)}

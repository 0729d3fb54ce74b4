"""Whole daemons for tests: started as a user starts them, on free ports, watched, and gone afterwards."""

import asyncio
import contextlib
import http.client
import inspect
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

ROOT = Path(__file__).parent.parent
WAIT_MAX_S = 60.0
"""What is waited for comes at once, but for a machine that is slow or busy: then a test takes longer, and is right."""
POLL_S = 0.01
FIXED_PORTS = (15_000, 32_000)
CHANCE = random.SystemRandom()


def wait_for(
    predicate: Callable[[], Any], timeout_s: float = WAIT_MAX_S, description: str = "", *, poll_s: float = POLL_S
) -> Any:
    """Poll until `predicate()` is truthy and return what it said; fail with `description` after `timeout_s`.

    `poll_s`: between two looks; more of it where the looking itself would slow down what is waited for.
    """
    deadline = time.monotonic() + timeout_s
    while not (value := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {description or inspect.getsource(predicate).strip()}")
        time.sleep(poll_s)
    return value


async def wait_until(
    predicate: Callable[[], Any] | Callable[[], Awaitable[Any]], timeout_s: float = WAIT_MAX_S, description: str = ""
) -> Any:
    """As `wait_for`, without blocking the loop; `predicate` may be a coroutine function."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {description or inspect.getsource(predicate).strip()}")
        await asyncio.sleep(POLL_S)


class Response:
    """Status, headers and body of an answer."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:200]!r}>"


def request(
    method: str,
    url: str,
    *,
    body: bytes | str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = WAIT_MAX_S,
) -> Response:
    """Make one HTTP request on a connection of its own; every status is an answer, only a broken connection raises."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, path, body=body, headers=dict(headers or {}))
        answer = connection.getresponse()
        return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


class DaemonProcess:
    """One `bridge run FILE` with a state folder of its own; may be killed, restarted and looked into."""

    def __init__(
        self,
        folder: Path,
        config: str,
        *,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = ("-m", "bridge"),
    ) -> None:
        """Write `config` (TOML without `listen`) to `folder`; nothing is started yet.

        `command` is what Python runs: a launcher in the place of `-m bridge` plants mutants.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.state = folder / "state"
        self.file = folder / "bridge.toml"
        self.file.write_text(with_free_ports(config))
        self.log_path = folder / "daemon.log"
        self.environment = dict(environment or {})
        self.command = command
        self.process: subprocess.Popen[bytes] | None = None
        self._descendants: dict[int, psutil.Process] = {}

    # --- life -----------------------------------------------------------------------------------------

    def start(self, *, ready: bool = True, **environment: str) -> "DaemonProcess":
        """Start the daemon; returns once /ready says 200, unless `ready` is false."""
        assert self.process is None or self.process.poll() is not None, "already running"
        (self.state / "daemon.json").unlink(missing_ok=True)
        clean = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.command, "run", str(self.file)],
                cwd=ROOT,
                env=clean | {"BRIDGE_STATE": str(self.state)} | self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self, timeout_s: float = WAIT_MAX_S) -> None:
        """Return once /ready says 200; fail at once when the process ends."""

        def is_ready() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.log_tail()}")
            try:
                return request("GET", f"{self.api}/ready", timeout_s=10).status == 200
            except (OSError, ValueError, KeyError, http.client.HTTPException):
                return False

        try:
            wait_for(is_ready, timeout_s, "the daemon is ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_tail()}") from None
        self.descendants()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def descendants(self) -> list[psutil.Process]:
        """Return the workers and helpers alive now; remembered, so that their end can be checked later."""
        if self.process is not None:
            try:
                for child in psutil.Process(self.process.pid).children(recursive=True):
                    self._descendants[child.pid] = child
            except psutil.Error:
                pass
        return self.survivors()

    def survivors(self) -> list[psutil.Process]:
        """Return remembered descendants that still run."""
        alive = []
        for child in self._descendants.values():
            try:
                if child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
                    alive.append(child)
            except psutil.Error:
                continue
        return alive

    def kill9(self) -> None:
        """End the daemon as power loss of the process would; its workers must follow by themselves."""
        assert self.process is not None
        self.descendants()
        self.process.kill()
        self.process.wait(WAIT_MAX_S)

    def terminate(self, timeout_s: float = WAIT_MAX_S) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.descendants()
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = WAIT_MAX_S) -> int:
        """Wait for the daemon's own end and return its exit code."""
        assert self.process is not None
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the daemon did not end within {timeout_s} s:\n{self.log_tail()}") from None

    def restart(self, **environment: str) -> "DaemonProcess":
        """Start again on the same state folder, after any kind of end."""
        return self.start(ready=True, **environment)

    def stop(self) -> None:
        """End it by its pid, if it still runs, and make sure that its whole process tree is gone."""
        if self.is_running():
            try:
                self.terminate()
            except AssertionError:
                self.kill9()
                raise
        try:
            wait_for(lambda: not self.survivors(), description="all workers of the daemon are gone")
        finally:
            for child in self.survivors():
                child.kill()

    # --- a look inside --------------------------------------------------------------------------------

    @property
    def info(self) -> dict[str, Any]:
        return dict(json.loads((self.state / "daemon.json").read_text()))

    @property
    def api(self) -> str:
        return str(self.info["url"]).rstrip("/")

    @property
    def public(self) -> str:
        return str(self.info["public"]).rstrip("/")

    @property
    def token(self) -> str:
        return (self.state / "token").read_text().strip()

    def post(self, path: str, body: bytes | str | Any = b"", **headers: str) -> Response:
        """POST to the public listener; anything but text and bytes goes as JSON."""
        data = body if isinstance(body, bytes | str) else json.dumps(body)
        return request("POST", self.public + path, body=data, headers=headers)

    def get(self, path: str, **headers: str) -> Response:
        return request("GET", self.public + path, headers=headers)

    def admin(self, method: str, path: str, body: Any = None) -> Response:
        """Ask the api listener, with the token."""
        data = None if body is None else json.dumps(body)
        return request(method, self.api + path, body=data, headers={"Authorization": f"Bearer {self.token}"})

    def metrics(self) -> dict[str, float]:
        """Return every sample of /metrics by its name with labels."""
        samples = {}
        for line in request("GET", f"{self.api}/metrics").body.decode().splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples

    def cli(self, *arguments: str, timeout_s: float = WAIT_MAX_S) -> "subprocess.CompletedProcess[str]":
        """Run `bridge ARGUMENTS` against this daemon's state folder; standard input is empty."""
        clean = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        return subprocess.run(
            [sys.executable, "-m", "bridge", *arguments],
            cwd=ROOT,
            env=clean | {"BRIDGE_STATE": str(self.state), "NO_COLOR": "1", "COLUMNS": "160"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = 60) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def rss_mib(self) -> float:
        """Resident memory of the daemon process itself, without its workers."""
        return psutil.Process(self.pid).memory_info().rss / 2**20


def with_free_ports(config: str) -> str:
    """Return `config` with listeners on free loopback ports, unless it names its own."""
    if "listen" in config:
        return config
    return 'listen = { public = "127.0.0.1:0", api = "127.0.0.1:0" }\n' + config


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on now; a restarted daemon or broker takes the same ones again.

    None of those that the kernel gives to whoever asks for any: another test could have it before we do, and a client
    that tries again and again while its server is away could come to talk to itself.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = CHANCE.randrange(*FIXED_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            if port not in ports:
                ports.append(port)
    return ports


def write_function(folder: Path, source: str, *, module: str = "app") -> Path:
    """Write a function's code folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(source)
    return folder

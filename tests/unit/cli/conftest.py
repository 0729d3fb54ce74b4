"""The command line against a real listener: the api over fakes, in a thread with a loop of its own."""

import asyncio
import contextlib
import io
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import structlog
from click.testing import CliRunner

from bridge.cli.main import cli
from bridge.util.listener import Listener
from tests.unit.api.harness import TOKEN, World
from tests.unit.api.making import Made, MemoryFunctions


class Served:
    """A world that listens, and its state folder as a daemon leaves it."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.world: World = self.call(self._open())

    async def make_world(self) -> World:
        return World(heartbeat_s=0.05)

    async def _open(self) -> World:
        world = await self.make_world()
        self.listener = Listener(world.app, name="api", host="127.0.0.1", port=0)
        await self.listener.open()
        self.url = f"http://127.0.0.1:{self.listener.port}"
        self.state.mkdir()
        (self.state / "token").write_text(TOKEN + "\n")
        (self.state / "daemon.json").write_text(json.dumps({"url": self.url, "pid": os.getpid()}))
        return world

    def call(self, work):
        """Run a coroutine in the server's loop and return its result."""
        future: Future = asyncio.run_coroutine_threadsafe(work, self.loop)
        return future.result(60)

    def soon(self, function, *args) -> None:
        self.loop.call_soon_threadsafe(function, *args)

    def close(self) -> None:
        async def end() -> None:
            await self.world.close()
            await self.listener.close(1.0)

        self.call(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(60)
        self.loop.close()


class ServedMade(Served):
    """A world whose functions can be made; `services` as `Made` takes them."""

    def __init__(self, folder: Path, **services: Any) -> None:
        self.folder = folder
        self._services = services
        super().__init__(folder)

    async def make_world(self):
        self.made = Made(self.folder, MemoryFunctions(), **self._services)
        await self.made.made.open()
        return self.made.world


@pytest.fixture(autouse=True)
def environment_as_it_was() -> Iterator[None]:
    """`bridge --state X run` passes X on in the environment, which here is that of other tests as well."""
    before = os.environ.get("BRIDGE_STATE")
    yield
    os.environ.pop("BRIDGE_STATE", None)
    if before is not None:
        os.environ["BRIDGE_STATE"] = before


@pytest.fixture(autouse=True)
def _apart(monkeypatch, tmp_path):
    """No daemon, configuration or variable of the machine is found by accident."""
    monkeypatch.chdir(tmp_path)
    for name in [*os.environ]:
        if name.startswith("BRIDGE_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    """Commands that work on files set the logging of the process, which here is that of all tests."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)  # not the attribute: loggers keep what they have found out about levels
    structlog.reset_defaults()


@contextlib.contextmanager
def serving(made: Callable[[Path], Served], folder: Path) -> Iterator[Served]:
    """Serve a world as long as a test lasts."""
    # the served side logs from a thread of this very process: not into the output of the command under test
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(io.StringIO()))
    served = made(folder)
    yield served
    served.close()
    structlog.reset_defaults()


@pytest.fixture
def served(tmp_path):
    with serving(Served, tmp_path) as made:
        yield made


def invoke(*args: str, stdin: bytes | str | None = None, env: dict[str, str] | None = None) -> SimpleNamespace:
    """Run the command line as `main` does, its error handling included."""
    result = CliRunner().invoke(cli, list(args), input=stdin, env=env, standalone_mode=False)
    error, err = result.exception, result.stderr
    code = result.return_value if error is None and isinstance(result.return_value, int) else result.exit_code
    if isinstance(error, click.ClickException):
        text = io.StringIO()
        error.show(file=text)
        code, err = error.exit_code, err + text.getvalue()
    elif error is not None and not isinstance(error, SystemExit):
        raise error
    return SimpleNamespace(code=code, out=result.stdout, err=err, raw=result.stdout_bytes)


@pytest.fixture
def bridge(served):
    """Return `bridge(*args)`: runs a command that finds the served daemon through its state folder."""
    return lambda *args, **options: invoke("--state", str(served.state), *args, **options)


@pytest.fixture
def alone():
    """Return `alone(*args)`: runs a command with no daemon to be found."""
    return invoke

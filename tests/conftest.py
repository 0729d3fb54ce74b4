"""What every test may use, and what none may leave behind: processes, tasks, descriptors, blocked loops."""

import asyncio
import gc
import inspect
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import hypothesis
import psutil
import pytest
import pytest_asyncio
import uvloop
from blockbuster import BlockBuster

from tests import harness
from tests.harness import DaemonProcess, wait_for

pytest_plugins = ("tests.brokers.fixtures", "tests.brokers.aws_fixtures", "tests.brokers.mqtt_fixtures")

# How long an example takes, or takes to be made, is the machine's affair.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

LOOP = os.environ.get("BRIDGE_LOOP", "uvloop")

# A daemon takes no more events below 256 MB of free disk (`[journal] low_water_mb`): tests that wait for one would only
# run out of time.
DISK_MIN_BYTES = 1024**3

# Descriptors that belong to the interpreter, the loop or the machine rather than to a test.
IGNORED_DESCRIPTORS = (
    "anon_inode:[eventpoll]",
    "anon_inode:[eventfd]",
    "anon_inode:[io_uring]",
    "/dev/null",
    "/dev/urandom",
    "/proc/",
    "pipe:",
)


def pytest_sessionstart() -> None:
    """Say before the first test, rather than by the fiftieth, that the disk is too full for daemons."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < DISK_MIN_BYTES:
        pytest.exit(
            f"{folder}: {free >> 20} MB are free, the tests need {DISK_MIN_BYTES >> 20}: free some, or set TMPDIR",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop, as the daemon; BRIDGE_LOOP=asyncio switches both."""
    return {"asyncio": asyncio.new_event_loop} if LOOP == "asyncio" else {"uvloop": uvloop.new_event_loop}


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name sets the same in every process: pytest-xdist compares what its workers have collected."""
    return stable(val) if isinstance(val, set | frozenset | dict) else None


def stable(value: object) -> str:
    """Return a repr whose order does not depend on hashes."""
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(stable, value))) + "}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{stable(key)}: {stable(item)}" for key, item in value.items()) + "}"
    return repr(value)


def pytest_report_header() -> str:
    return f"loop: {LOOP}, python {sys.version.split()[0]}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the log of every daemon of a test that fails."""
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for daemon in getattr(item, "daemons", ()):
            report.sections.append((f"log of {daemon.folder.name}", daemon.log_tail(120)))


# --- leaks --------------------------------------------------------------------------------------------


def children() -> set[int]:
    """Return the pids of live children of this process; zombies are not live."""
    pids = set()
    for process in psutil.Process().children():
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                pids.add(process.pid)
        except psutil.NoSuchProcess:
            continue
    return pids


def descriptors() -> dict[int, str]:
    """Return what this process holds open, without what is not a test's own."""
    held = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if not target.startswith(IGNORED_DESCRIPTORS):
            held[int(name)] = target
    return held


@pytest.fixture(autouse=True)
def leaves_no_process(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a child process behind."""
    before = children()
    yield
    if left := children() - before:
        try:
            wait_for(lambda: not (children() - before), description=f"child processes {left} have ended")
        finally:
            for pid in children() - before:
                psutil.Process(pid).kill()


@pytest.fixture(autouse=True)
def leaves_no_descriptor(leaves_no_process: None) -> Iterator[None]:
    """Fail a test that leaves a file or a socket open."""
    before = descriptors()
    yield

    def left() -> dict[int, str]:
        return {fd: target for fd, target in descriptors().items() if before.get(fd) != target}

    for _ in range(500):  # a thread of the test, or an object nobody holds, may still be closing it
        if not left():
            break
        gc.collect()
        time.sleep(0.01)
    still = left()
    assert not still, f"left open: {sorted(still.values())}"


@pytest_asyncio.fixture
async def leaves_no_task() -> AsyncIterator[None]:
    """Fail a test that leaves a task running in its loop."""
    before = asyncio.all_tasks()
    yield

    def left() -> set["asyncio.Task[object]"]:
        return {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}

    for _ in range(3000):  # tasks that were cancelled in the last lines of the test may still be ending
        if not left():
            return
        await asyncio.sleep(0.01)
    names = sorted(f"{task.get_name()} {task.get_coro()}" for task in left())
    for task in left():
        task.cancel()
    raise AssertionError(f"left running: {names}")


@pytest.fixture(autouse=True)
def watch_tasks(request: pytest.FixtureRequest, leaves_no_descriptor: None) -> None:
    """Give every asynchronous test the check for tasks."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("leaves_no_task")


# --- blocking -----------------------------------------------------------------------------------------


@pytest.fixture
def loop_strict() -> Iterator[BlockBuster]:
    """Fail the test when `bridge` blocks the event loop: a file, a lock, a sleep. Ask for it by name."""
    blockbuster = BlockBuster(scanned_modules=["bridge"])
    blockbuster.activate()
    yield blockbuster
    blockbuster.deactivate()


# --- daemons ------------------------------------------------------------------------------------------


@pytest.fixture
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., DaemonProcess]]:
    """Return `daemon(config, ready=True, name="daemon", **environment)`: starts a daemon that ends with the test."""
    started: list[DaemonProcess] = []
    request.node.daemons = started

    def start(
        config: str,
        *,
        ready: bool = True,
        name: str = "daemon",
        command: tuple[str, ...] = ("-m", "bridge"),
        **environment: str,
    ) -> DaemonProcess:
        process = DaemonProcess(tmp_path / name, config, environment=environment, command=command)
        started.append(process)
        return process.start(ready=ready)

    yield start
    errors = []
    for process in started:
        try:
            process.stop()
        except AssertionError as error:
            errors.append(str(error))
    assert not errors, errors


@pytest.fixture
def wait_until() -> Callable[..., object]:
    """Poll a condition without blocking the loop: `await wait_until(predicate, timeout_s, description)`."""
    return harness.wait_until

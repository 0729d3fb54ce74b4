"""The daemon's side of the zygote: start it, ask it for workers, hear of their ends, end leftovers of the last run."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from bridge.core.errors import RuntimeUnavailable
from bridge.runtime import launch

log = structlog.get_logger("bridge.runtime")

HELLO_MAX_S: Final = 30.0
LEFTOVERS_MAX_S: Final = 5.0
PROCESS_LINES_MAX: Final = 4096
_CREDENTIALS: Final = struct.Struct("=iii")
"""struct ucred: process, user, group."""
_CREDENTIALS_SPACE: Final = socket.CMSG_SPACE(_CREDENTIALS.size)


class Zygote:
    """One zygote process and its control socket. Reports arrive at `on_report` on the loop."""

    def __init__(self, *, on_report: Callable[[dict[str, Any]], None], on_end: Callable[[], None]) -> None:
        self._on_report = on_report
        self._on_end = on_end
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._hello: asyncio.Future[dict[str, Any]] | None = None

    @property
    def is_alive(self) -> bool:
        """True between open and the end of the process."""
        return self._control is not None

    @property
    def pid(self) -> int:
        """Process id of the zygote."""
        assert self._process is not None
        return self._process.pid

    async def open(self, settings: Mapping[str, Any], *, groups: Sequence[int] = ()) -> dict[str, Any]:
        """Start the process, or take the one that waits, and return its hello.

        Call it on the main thread: PDEATHSIG follows threads.

        Args:
            settings: what it is to do.
            groups: descriptors of our control groups; none: workers get none.

        Raises:
            RuntimeUnavailable: it did not start.
        """
        loop = asyncio.get_running_loop()
        self._process, self._control = launch.take()
        self._hello = loop.create_future()
        loop.add_reader(self._control.fileno(), self._read)
        with contextlib.suppress(OSError):  # it ended: the reader or the deadline notices
            socket.send_fds(self._control, [json.dumps(settings).encode()], groups)
        try:
            async with asyncio.timeout(HELLO_MAX_S):
                return await self._hello
        except TimeoutError:
            await self.close()
            raise RuntimeUnavailable("the worker zygote did not start in time") from None

    def start(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """Ask for a worker; `started` or `failed`, then `ended` and `gone` are reported.

        Raises:
            RuntimeUnavailable: the zygote is not there.
        """
        if self._control is None:
            raise RuntimeUnavailable("the worker zygote has ended")
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], list(descriptors))
        except OSError as error:
            raise RuntimeUnavailable(f"the worker zygote does not answer: {error}") from error

    def kill(self, worker_id: int) -> None:
        """End a worker with all its descendants; `gone` is reported. Twice is fine."""
        self._send({"op": "kill", "id": worker_id})

    def drop_scratch(self, path: str) -> None:
        """Free a scratch space that no worker uses any more."""
        self._send({"op": "drop_scratch", "scratch": path})

    def _send(self, request: Mapping[str, Any]) -> None:
        if self._control is not None:
            with contextlib.suppress(OSError):  # it ended, or is stuck: the reader or the deadline notices
                self._control.send(json.dumps(request).encode())

    def _read(self) -> None:
        assert self._control is not None
        for _ in range(64):
            try:
                data, ancillary, _, _ = self._control.recvmsg(1 << 18, _CREDENTIALS_SPACE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._ended()
                return
            report = json.loads(data)
            if ancillary:  # the sender's process id as seen from here
                report["pid"] = _CREDENTIALS.unpack(ancillary[0][2][: _CREDENTIALS.size])[0]
            if report["op"] == "hello":
                if self._hello is not None and not self._hello.done():
                    self._hello.set_result(report)
            else:
                self._on_report(report)

    def _ended(self) -> None:
        self._disconnect()
        if self._hello is not None and not self._hello.done():
            self._hello.set_exception(RuntimeUnavailable("the worker zygote ended while starting"))
        self._on_end()

    def _disconnect(self) -> None:
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None

    async def close(self) -> None:
        """Close the socket, upon which it ends all workers and itself; twice is fine."""
        self._send({"op": "end"})
        self._disconnect()
        process, self._process = self._process, None
        if process is None:
            return
        deadline = time.monotonic() + LEFTOVERS_MAX_S
        while process.poll() is None:
            if time.monotonic() > deadline:
                process.kill()
                process.wait()
                break
            await asyncio.sleep(0.005)


class ProcessFile:
    """Processes we started, by id, start time and boot: so that a later daemon can end exactly those."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = 0
        self._started: dict[int, int] = {}
        """By process id, as it was when we were told of the process: later the number may be a stranger's."""
        self._boot = _read_text("/proc/sys/kernel/random/boot_id").strip()

    def add(self, pid: int, *, living: Callable[[], Sequence[int]]) -> None:
        """Remember a process; rewritten with `living` now and then, so that the file stays small."""
        self._lines += 1
        new = {pid: start_time(pid)}
        self._started |= new
        if self._lines > PROCESS_LINES_MAX:
            self._path.unlink(missing_ok=True)
            new = self._started = {pid: self._started[pid] for pid in living() if pid in self._started}
            self._lines = len(new)
        text = "".join(f"{self._boot} {pid} {started}\n" for pid, started in new.items() if started)
        with contextlib.suppress(OSError):  # a full disk: the zygote's own end-of-socket still ends them
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)

    def clear(self) -> None:
        """Forget all: they have ended."""
        with contextlib.suppress(OSError):  # start times tell them from others, if it stays
            self._path.unlink(missing_ok=True)
        self._started.clear()
        self._lines = 0

    async def end_leftovers(self) -> int:
        """Kill the processes of the last run with their descendants and wait for their end; return how many."""
        leftovers = []
        for line in _read_text(self._path).splitlines():
            with contextlib.suppress(ValueError):
                boot, number, started = line.split()
                if boot == self._boot and start_time(int(number)) == int(started):
                    leftovers.append(int(number))
        tree = {pid for root in leftovers for pid in (root, *descendants(root))}
        for pid in tree:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + LEFTOVERS_MAX_S
        while any(start_time(pid) for pid in tree) and time.monotonic() < deadline:  # noqa: ASYNC110 - not our children
            await asyncio.sleep(0.01)
        self.clear()
        if tree:
            log.warning("leftover_workers_ended", processes=len(tree))
        return len(tree)


def _read_text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def start_time(pid: int) -> int:
    """Return the start time of a living process in clock ticks since boot; 0 when it is gone or a zombie."""
    fields = _read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[0] not in "ZX" else 0


def descendants(pid: int, *, most: int | None = None) -> list[int]:
    """Return the process ids below `pid`, parents first; not many more than `most`, where that is enough to know."""
    found: list[int] = []
    pending = [pid]
    while pending and (most is None or len(found) <= most):
        parent = pending.pop()
        try:
            threads = os.listdir(f"/proc/{parent}/task")  # noqa: PTH208 - a hot path: every busy worker, 20 times a second
        except OSError:
            continue
        for thread in threads:
            try:
                with open(f"/proc/{parent}/task/{thread}/children", "rb") as file:  # noqa: PTH123 - as above
                    below = [int(child) for child in file.read().split()]
            except OSError:
                continue
            found += below
            pending += below
    return found

"""One service for all of a test run: started by whoever needs it first, ended with the last, shared by pytest-xdist's workers."""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.brokers.guard import ENDPOINTS, use


class Startable(Protocol):
    """A service that was started."""

    def stop(self) -> None: ...

    def leave(self) -> None: ...


@contextlib.contextmanager
def shared(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    start: Callable[[Path], tuple[Startable, dict[str, Any]]],
) -> Iterator[dict[str, Any]]:
    """Yield what `start(folder)` said of where the service is, from this process or from another one of the run."""
    is_worker = hasattr(request.config, "workerinput")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if is_worker else base) / name
    folder.mkdir(exist_ok=True)
    started: Startable | None = None
    with (folder / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mine = use(folder)  # waits for a guard that is just ending an earlier one
        file = folder / ENDPOINTS
        if not file.exists():
            started, endpoints = start(folder)
            file.write_text(json.dumps(endpoints))
    try:
        yield json.loads(file.read_text())
    finally:
        os.close(mine)
        if started is not None and is_worker:
            started.leave()
        elif started is not None:
            started.stop()

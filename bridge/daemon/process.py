"""Runs a daemon as a process: signals, reloads, the event loop, the exit status."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog

from bridge.api.app import ReloadResult
from bridge.config.settings import Settings
from bridge.daemon.daemon import Daemon
from bridge.daemon.ready import Ready
from bridge.runtime import syscalls
from bridge.util import logs as log_setup
from bridge.util.aio import SWITCH_INTERVAL_S

log = structlog.get_logger("bridge.daemon")


def run(
    settings: Settings,
    *,
    config_path: Path | None = None,
    watch: bool = False,
    on_ready: Callable[[Ready], None] | None = None,
    local: bool = False,
    allow_remote: bool = False,
) -> int:
    """Run a daemon until SIGTERM or SIGINT; returns the exit status. See `Daemon` for the arguments.

    Raises:
        ConfigError, StoreBusy, StoreError: it could not be started.
    """
    with contextlib.suppress(OSError):  # secrets are in our memory from here on
        syscalls.set_dumpable(dumpable=False)
    log_setup.configure(level=settings.log.level, style=settings.log.format)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    daemon = partial(Daemon, settings, config_path=config_path, watches=watch, local=local, allow_remote=allow_remote)
    main = _main(daemon, on_ready=on_ready)
    if os.environ.get("BRIDGE_LOOP", "uvloop") == "asyncio":
        return asyncio.run(main)
    import uvloop

    return uvloop.run(main)


async def _main(make: Callable[[], Daemon], *, on_ready: Callable[[Ready], None] | None) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    daemon = make()
    reloads: set[asyncio.Task[ReloadResult]] = set()

    def reload() -> None:
        task = loop.create_task(daemon.reload())
        reloads.add(task)
        task.add_done_callback(reloaded)

    def reloaded(task: asyncio.Task[ReloadResult]) -> None:
        reloads.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("reload_failed", error=repr(error), exc_info=error)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # The file was read a moment ago: a SIGHUP during the start asks for nothing, and must not end the daemon.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    ready = await daemon.open()
    gc.enable()  # off while everything was imported, see `bridge run`
    loop.add_signal_handler(signal.SIGHUP, reload)
    if on_ready is not None:
        on_ready(ready)
    await stop.wait()
    for number in (signal.SIGTERM, signal.SIGINT):  # a second one ends it at once
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
    await daemon.close()
    return 0

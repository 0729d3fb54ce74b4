"""A daemon, from settings to its end: `run` for the command line, `Daemon` for whoever embeds it."""

from bridge.util.slim import import_structlog

import_structlog()

from bridge.daemon.daemon import Daemon  # noqa: E402 - structlog comes first
from bridge.daemon.process import run  # noqa: E402
from bridge.daemon.ready import Ready, ReadyRoute  # noqa: E402

__all__ = ["Daemon", "Ready", "ReadyRoute", "run"]

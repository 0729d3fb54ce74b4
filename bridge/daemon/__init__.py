"""A daemon, from settings to its end: `run` for the command line, `Daemon` for whoever embeds it."""

from bridge.daemon.daemon import Daemon, Ready, ReadyRoute, run

__all__ = ["Daemon", "Ready", "ReadyRoute", "run"]

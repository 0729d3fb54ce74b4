"""Finds the daemon: --url and --token, else the state folder that the daemon and the command line share."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.cli.failures import Misused, NoDaemon
from bridge.cli.output import note

if TYPE_CHECKING:
    from bridge.cli.client import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was said before the verb, environment included."""

    url: str | None = None
    token: str | None = None
    state: str | None = None
    config: str | None = None

    @classmethod
    def of(cls, context: click.Context) -> "Options":
        """Return the options of the outermost command (also while completing, when no command runs)."""
        params = context.find_root().params
        return cls(
            url=params.get("url"), token=params.get("token"), state=params.get("state"), config=params.get("config")
        )


def config_path(options: Options, given: str | None = None) -> Path | None:
    """Return the configuration file that was named; None stands for `bridge.toml` of the working directory."""
    named = given or options.config
    return None if named is None else Path(named)


def state_folder(options: Options) -> Path:
    """Return the state folder: --state or BRIDGE_STATE, `state` in the file, `.bridge` in the working directory.

    Raises:
        Misused: there is a configuration file and it cannot be read.
    """
    from bridge.config.document import state_folder as find
    from bridge.config.mistakes import ConfigErrors

    named = {"BRIDGE_STATE": options.state} if options.state else {}
    try:
        return find(config_path(options), os.environ | named)
    except ConfigErrors as error:
        first, *more = error.mistakes
        raise Misused(first, more=more) from error


def _state_folders(options: Options) -> tuple[Path, ...]:
    """Return where daemons may be found: one folder when it is named, else also that of `bridge run --local`."""
    from bridge.config.document import local_state

    state = state_folder(options)
    return (state,) if options.state or os.environ.get("BRIDGE_STATE") else (state, local_state(state))


def connect(options: Options, *, timeout_s: float | None = None, quiet: bool = False) -> "Client":
    """Return a client for the daemon; `timeout_s` is the client's own when not given.

    A daemon of the usual state folder goes before one of `bridge run --local`; unless `quiet`, it is said that there
    are two.

    Raises:
        NoDaemon: none is to be found.
        Misused: a URL without a token, or a state folder that may not be read.
    """
    from bridge.cli.client import TIMEOUT_S, Client  # `bridge run` needs none, and starts without it

    state, known = _find(options, quiet=quiet)
    url = options.url or str(known.get("url", ""))
    is_own = _is_same(url, known)
    token = options.token or (_token(state) if is_own else None)
    if token is None:
        raise Misused(
            f"a token is needed for {url}: --token or BRIDGE_TOKEN (the state folder's own goes to its daemon only)"
        )
    certificate = known.get("certificate") if is_own else None
    return Client(
        url,
        token,
        certificate=str(certificate) if certificate else None,
        timeout_s=TIMEOUT_S if timeout_s is None else timeout_s,
    )


def _find(options: Options, *, quiet: bool) -> tuple[Path, dict[str, object]]:
    """Return the state folder to go by and what its daemon wrote down; with --url perhaps nothing."""
    usual, *others = _state_folders(options)
    if options.url is not None:
        known = {folder: _read_known(folder, required=False) for folder in (usual, *others)}
        same = [folder for folder in known if _is_same(options.url, known[folder])]
        return (same or [usual])[0], known[(same or [usual])[0]]
    running: list[tuple[Path, dict[str, object]]] = []
    missing: list[NoDaemon] = []
    for folder in (usual, *others):
        try:
            running.append((folder, _read_known(folder, required=True)))
        except NoDaemon as error:
            missing.append(error)
    if not running:
        raise missing[0]
    if len(running) > 1 and not quiet:
        note(f"bridge: this asks the daemon of {usual}; for that of `bridge run --local`: --state {running[1][0]}")
    return running[0]


def _is_same(url: str, known: dict[str, object]) -> bool:
    return url.rstrip("/") == str(known.get("url", "")).rstrip("/")


def _read_known(state: Path, *, required: bool) -> dict[str, object]:
    """Return what the daemon wrote down about itself; nothing when there is none and --url was given."""
    path = state / "daemon.json"
    try:
        known = json.loads(path.read_text("utf-8"))
        if isinstance(known, dict) and isinstance(known.get("url"), str):
            if required and not is_alive(known.get("pid")):
                raise NoDaemon(f"the daemon of {state} has ended")
            return known
        problem = "does not say where the daemon is"
    except FileNotFoundError:
        problem = ""
    except PermissionError:
        raise Misused(f"{path} may not be read by this user; use --url and --token, or the daemon's user") from None
    except (OSError, ValueError) as error:
        problem = f"cannot be read ({type(error).__name__})"
    if not required:
        return {}
    raise NoDaemon(f"{path} {problem}" if problem else f"no daemon runs on the state folder {state}")


def is_alive(pid: object) -> bool:
    """Tell whether a process exists; what is no pid is taken for alive (another machine's or container's daemon)."""
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _token(state: Path) -> str | None:
    path = state / "token"
    try:
        return path.read_text("utf-8").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise Misused(f"{path} cannot be read by this user; use --token or BRIDGE_TOKEN") from None

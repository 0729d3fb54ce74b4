"""What a started daemon tells: whoever started it, for the banner, and the command line, which looks for it."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import orjson

from bridge import __version__
from bridge.config.settings import Settings
from bridge.core.invocation import InvocationType
from bridge.core.mapping import EventSourceMapping
from bridge.core.push import PushSource


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyRoute:
    """A webhook route, for the banner."""

    path: str
    methods: tuple[str, ...]
    function: str
    invocation_type: InvocationType
    scheme: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyReceiver:
    """A push source that runs by itself, for the banner."""

    kind: str
    place: str
    function: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What a started daemon tells whoever started it."""

    public: str
    """URL of the public listener."""
    api: str
    """URL of the api listener."""
    state: Path
    functions: tuple[str, ...]
    routes: tuple[ReadyRoute, ...]
    receivers: tuple[ReadyReceiver, ...]
    mappings: tuple[EventSourceMapping, ...]
    watched: bool
    took_s: float


def ready_routes(settings: Settings) -> tuple[ReadyRoute, ...]:
    """Return the webhook routes."""
    return tuple(
        ReadyRoute(
            path=source.path,
            methods=tuple(source.methods or ()),
            function=source.function or "",
            invocation_type=source.invocation_type,
            scheme=source.scheme.scheme,
        )
        for source in settings.webhooks.values()
    )


def ready_receivers(sources: Iterable[PushSource]) -> tuple[ReadyReceiver, ...]:
    """Return the push sources that run by themselves."""
    return tuple(ReadyReceiver(kind=each.kind, place=each.place, function=each.function) for each in sources)


def announce(folder: Path, *, url: str, public: str, certificate: str) -> Path:
    """Write where the daemon of a state folder listens, for the command line, and return the file.

    Args:
        folder: the state folder.
        url: of the api listener.
        public: of the other one.
        certificate: path of the listeners' own; empty: they speak no TLS.
    """
    document = {"pid": os.getpid(), "url": url, "public": public, "version": __version__}
    if certificate:
        document["certificate"] = certificate
    path = folder / "daemon.json"
    temporary = path.with_suffix(".new")
    temporary.write_bytes(orjson.dumps(document))
    temporary.chmod(0o600)
    temporary.rename(path)
    return path

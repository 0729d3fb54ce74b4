"""Webhook routes: what one is, and the table by which requests find theirs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from bridge.core import limits
from bridge.core.errors import ConfigError
from bridge.core.invocation import InvocationType
from bridge.core.ports import Clock
from bridge.core.push import Sender
from bridge.events.http import HttpOrigin
from bridge.sources.push import formats
from bridge.sources.push.signatures import Verifier
from bridge.util import telemetry

_PATH_SAFE: Final = "/:@!$&'()*+,;=~-._%"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One webhook as it is configured."""

    name: str
    """`[sources.NAME]`: the record's source, the event's apiId, the label in metrics."""
    path: str
    """Matched whole, as sent: `//x`, `/%2e%2e/` and other spellings are other paths."""
    function: str
    """Target: `name[:qualifier]`; empty where only mappings read the source."""
    verifier: Verifier
    methods: tuple[str, ...] = ()
    """Empty: POST, or any for RequestResponse."""
    invocation_type: InvocationType = InvocationType.EVENT
    format: str = formats.DEFAULT
    """What a request becomes: a word that `formats.make_format` knows."""
    format_options: Mapping[str, Any] = field(default_factory=dict)
    """The format's own settings, by keyword."""
    body_max_bytes: int = limits.BODY_DEFAULT_MAX_BYTES
    """1..6,291,456"""
    deduplicate_s: float = float(limits.DEDUPLICATION_WINDOW_DEFAULT_S)
    """0: a delivery id is not looked at."""
    async_payload_max_bytes: int = limits.ASYNC_PAYLOAD_MAX_BYTES
    """Largest serialised event of type Event."""
    sender: Sender | None = None
    """As whom it invokes where the function's resource policy is asked; None: naming the function allows it."""


class Mounted:
    """A route with what its requests share.

    Raises:
        ConfigError: the route's format is unknown, or one of its options cannot be used.
    """

    __slots__ = ("accepted", "format", "payload_max", "route")

    def __init__(self, route: Route, *, account_id: str, region: str, clock: Clock) -> None:
        self.route = route
        origin = HttpOrigin(
            account_id=account_id,
            api_id=route.name,
            domain_name=f"{route.name}.lambda-url.{region}.on.aws",
            hidden_headers=route.verifier.hidden_headers,
        )
        self.format = formats.make_format(
            route.format,
            formats.FormatContext(
                origin=origin,
                clock=clock,
                invocation_type=route.invocation_type,
                region=region,
                options=route.format_options,
            ),
        )
        is_event = route.invocation_type is InvocationType.EVENT
        self.payload_max = route.async_payload_max_bytes if is_event else limits.SYNC_PAYLOAD_MAX_BYTES
        self.accepted = telemetry.EVENTS_ACCEPTED.labels(source=route.name, type=route.invocation_type.value)


Table = dict[bytes, dict[str, Mounted]]
"""Path as sent -> method (`*`: any) -> route."""


def route_table(routes: Iterable[Route], *, account_id: str, region: str, clock: Clock) -> Table:
    """Return the table of these routes.

    Raises:
        ConfigError: two routes want the same requests, a limit is out of range, or a format cannot be made.
    """
    table: Table = {}
    for route in routes:
        if not 1 <= route.body_max_bytes <= limits.BODY_MAX_BYTES:
            raise ConfigError(f"route {route.name}: body_max_bytes must be between 1 and {limits.BODY_MAX_BYTES}")
        if not route.path.startswith("/"):
            raise ConfigError(f"route {route.name}: path must start with /")
        mounted = Mounted(route, account_id=account_id, region=region, clock=clock)
        by_method = table.setdefault(quote(route.path, safe=_PATH_SAFE).encode("ascii"), {})
        for method in dict.fromkeys((*_methods(route), *mounted.format.greeted)):
            if method in mounted.format.greeted and by_method.get("*") is mounted:
                continue
            if method in by_method or (by_method and "*" in (method, *by_method)):
                other = next(iter(by_method.values())).route.name
                raise ConfigError(f"route {route.name}: {route.path} is already taken by route {other}")
            by_method[method] = mounted
    return table


def _methods(route: Route) -> tuple[str, ...]:
    if route.methods:
        methods = dict.fromkeys(method.upper() for method in route.methods)
        if "GET" in methods:
            methods["HEAD"] = None  # RFC 9110, 9.3.2
        return tuple(methods)
    return ("*",) if route.invocation_type is InvocationType.REQUEST_RESPONSE else ("POST",)

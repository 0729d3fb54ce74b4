"""The push sources of a daemon: its webhook routes, and those that run by themselves, over reloads and its end."""

import asyncio
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from bridge.core.invocation import InvocationType
from bridge.core.push import Accepted, Feedable, Given, NotAccepted, Permits, PushSource, Ticking
from bridge.daemon.health import TROUBLE_TOLD_S, Fact
from bridge.daemon.permits import EXPLICIT, PermittedIntake, sender_of
from bridge.events.batches import iso_seconds
from bridge.sources.push.routes import Route
from bridge.sources.push.signatures import make_verifier
from bridge.sources.push.webhook import WebhookSource
from bridge.util import telemetry

if TYPE_CHECKING:
    from bridge.config.settings import Settings
    from bridge.config.sources import SourceSettings
    from bridge.config.webhooks import WebhookSettings
    from bridge.core.ports import Clock, Intake, Invoker
    from bridge.pipeline.supervision import Tasks

log = structlog.get_logger("bridge.push")

CHANGE_DRAIN_S: Final = 5.0
"""How long a source that a reload changed or removed may finish what it has taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushParts:
    """What a push source is made of beside its own settings."""

    settings: "Settings"
    intake: "Intake"
    invoker: "Invoker"
    clock: "Clock"


class Maker(Protocol):
    """Makes a source that runs by itself."""

    def __call__(self, name: str, source: Any, parts: PushParts, /) -> PushSource:
        """Return it, not yet running; raises ConfigError."""
        ...


MAKERS: Final[Mapping[str, Maker]] = {}
"""By `type`; each loads its own library."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Push sources of new settings, checked and not yet in force."""

    settings: "Settings"
    routes: tuple[Route, ...]
    changed: Mapping[str, PushSource]
    """Sources that are new or have other settings than before."""
    gone: frozenset[str]
    """Names of those that end: removed, or among `changed`."""


class PushSources:
    """Webhook routes and running push sources.

    Args:
        settings: what is in force at the start.
        intake: stores events.
        invoker: runs RequestResponse and DryRun.
        clock: every source's time.
        tasks: keeps running sources running.
        makers: those of running sources, by type.
        idle: types that do not run here: they are only given events by hand (`bridge run --local` asks no broker).
        permits: asked for sources whose settings say `policy = "explicit"`.
    """

    def __init__(
        self,
        settings: "Settings",
        *,
        intake: "Intake",
        invoker: "Invoker",
        clock: "Clock",
        tasks: "Tasks",
        makers: Mapping[str, Maker] = MAKERS,
        idle: AbstractSet[str] = frozenset(),
        permits: Permits | None = None,
    ) -> None:
        self._permits = permits
        self._settings = settings
        self._intake = intake
        self._invoker = invoker
        self._clock = clock
        self._tasks = tasks
        self._makers = makers
        self._idle = idle
        self._running: dict[str, PushSource] = {}
        self._since: dict[str, float] = {}
        """Monotonic time at which each running source's trouble was first seen."""
        self._routes = read_routes(settings, clock)
        self.webhooks = WebhookSource(
            self._routes,
            intake=intake,
            invoker=invoker,
            clock=clock,
            trusted_proxies=tuple(str(network) for network in settings.listen.trusted_proxies),
            account_id=settings.account,
            region=settings.region,
            permits=permits,
        )
        self._made = self._make(settings, settings.sources)

    def start(self) -> None:
        """Run every source that is no route."""
        for source in self._made.values():
            self._start(source)
        self._made = {}

    def running(self) -> list[PushSource]:
        """Return the sources that are no routes, by name."""
        return [source for _, source in sorted(self._running.items())]

    def prepare(self, settings: "Settings") -> Prepared:
        """Check new settings' sources; nothing changes. Raises ConfigError."""
        before = self._settings
        shared = before.invocation == settings.invocation
        changed = {
            name: source
            for name, source in settings.sources.items()
            if name not in settings.webhooks and not (shared and before.sources.get(name) == source)
        }
        return Prepared(
            settings=settings,
            routes=tuple(read_routes(settings, self._clock)),
            changed=self._make(settings, changed),
            gone=frozenset(name for name in self._running if name in changed or name not in settings.sources),
        )

    def serve(self, prepared: Prepared) -> None:
        """Serve prepared settings' routes from the next request on.

        Raises:
            ConfigError: two routes want the same requests; nothing changes.
        """
        self.webhooks.set_routes(prepared.routes)
        self._routes = list(prepared.routes)
        settings = self._settings = prepared.settings
        self.webhooks.set_trusted_proxies(tuple(str(network) for network in settings.listen.trusted_proxies))

    async def replace(self, prepared: Prepared) -> None:
        """Run prepared settings' other sources, each once what its former self had taken is finished."""
        await self._end(sorted(prepared.gone), deadline_s=CHANGE_DRAIN_S)
        for source in prepared.changed.values():
            self._start(source)

    def observe(self) -> None:
        """Look which running sources are in trouble now; call it every second or so."""
        now = self._clock.monotonic()
        self._since = {name: self._since.get(name, now) for name, source in self._running.items() if source.trouble}

    def troubles(self) -> list[str]:
        """Return a line for each source whose trouble lasts longer than `TROUBLE_TOLD_S` seconds."""
        now = self._clock.monotonic()
        return [
            f"source {name} is in trouble for {now - since:.0f} s: {self._running[name].trouble}"
            for name, since in self._since.items()
            if name in self._running and now - since > TROUBLE_TOLD_S
        ]

    def facts(self) -> list[Fact]:
        """Return what is known of each running source; nothing is tried."""
        return [
            (f"source {source.name}", not source.trouble, source.trouble or f"{source.kind}: {self._place(source)}")
            for source in self.running()
        ]

    def _place(self, source: PushSource) -> str:
        """Return where a source's events come from, and what else a person wants to know first."""
        if source.kind in self._idle:
            return f"{source.place}, not asked here: bridge put {source.name} gives it events"
        if not isinstance(source, Ticking):
            return source.place + _ADVICE.get(source.kind, "")
        return f"{source.place}, " + (
            f"next {iso_seconds(at)}" if (at := source.next_at) is not None else "never again"
        )

    def status(self) -> list[dict[str, str]]:
        """Return every source, short: its name and type, and where its events come from."""
        routes = [{"name": route.name, "type": "webhook", "path": route.path} for route in self._routes]
        running = [
            {"name": source.name, "type": source.kind, "place": source.place, "trouble": source.trouble}
            for source in self.running()
        ]
        return routes + running

    def views(self) -> list[dict[str, object]]:
        """Return what is known of each source, by name. See push.PushSources."""
        accepted = _accepted()
        found = [_route_view(route) for route in self._routes] + [_view(source) for source in self._running.values()]
        for view in found:
            view["accepted"] = accepted.get(str(view["name"]), 0)
        return sorted(found, key=lambda view: str(view["name"]))

    async def feed(self, name: str, given: Given) -> Accepted:
        """Give a source an event by hand. See push.PushSources."""
        if any(route.name == name for route in self._routes):
            return await self.webhooks.feed(name, given)
        source = self._running.get(name)
        if source is None:
            raise NotAccepted(f"no source {name[:100]}", status=404)
        if not isinstance(source, Feedable):
            raise NotAccepted(f"{name} is of type {source.kind}, which takes nothing by hand")
        return await source.feed(given)

    def refuse(self) -> None:
        """Answer new requests with 503; those under way end."""
        self.webhooks.drain()

    async def drain(self, *, deadline_s: float) -> None:
        """Have every running source take nothing new and finish what it has taken, within `deadline_s` seconds."""
        self.refuse()
        await self._end(list(self._running), deadline_s=deadline_s)

    # --- running sources ------------------------------------------------------------------------

    def _make(self, settings: "Settings", sources: Mapping[str, "SourceSettings"]) -> dict[str, PushSource]:
        parts = PushParts(settings=settings, intake=self._intake, invoker=self._invoker, clock=self._clock)
        return {
            name: self._makers[source.type](name, source, self._permitted(name, source, parts))
            for name, source in sources.items()
            if name not in settings.webhooks
        }

    def _permitted(self, name: str, source: "SourceSettings", parts: PushParts) -> PushParts:
        if self._permits is None or source.policy != EXPLICIT:
            return parts
        sender = sender_of(name, source, parts.settings)
        return replace(parts, intake=PermittedIntake(parts.intake, sender, self._permits))

    def _start(self, source: PushSource) -> None:
        self._running[source.name] = source
        if source.kind not in self._idle:
            self._tasks.start(_task(source.name), source.run)

    async def _end(self, names: Sequence[str], *, deadline_s: float) -> None:
        await asyncio.gather(*(self._end_one(name, deadline_s=deadline_s) for name in names))

    async def _end_one(self, name: str, *, deadline_s: float) -> None:
        source = self._running.pop(name)
        try:
            async with asyncio.timeout(deadline_s):
                await source.drain()
        except TimeoutError:
            log.warning("source_cut_off", source=name, after_s=deadline_s)
        except Exception:  # the boundary of another's part: the others end too, and what it holds is unacknowledged
            log.exception("source_drain_failed", source=name)
        await self._tasks.stop(_task(name))


def _route_view(route: Route) -> dict[str, object]:
    return {
        "name": route.name,
        "type": "webhook",
        "place": route.path,
        "function": route.function,
        "invocation_type": route.invocation_type.value,
        "format": route.format,
        "methods": list(route.methods),
        "trouble": "",
    }


def _view(source: PushSource) -> dict[str, object]:
    view: dict[str, object] = {
        "name": source.name,
        "type": source.kind,
        "place": source.place,
        "function": source.function,
        "invocation_type": InvocationType.EVENT.value,
        "trouble": source.trouble,
    }
    if isinstance(source, Ticking):
        view |= {"next_at": source.next_at, "last_at": source.last_at}
    return view


def _accepted() -> dict[str, int]:
    """Return how many events each source has taken since the start."""
    counts: dict[str, int] = {}
    for sample in next(iter(telemetry.EVENTS_ACCEPTED.collect())).samples:
        if sample.name.endswith("_total"):
            source = sample.labels["source"]
            counts[source] = counts.get(source, 0) + int(sample.value)
    return counts


_ADVICE: Final[Mapping[str, str]] = {
    "mqtt": (
        "; while we are behind or away the broker queues, within its limits: of mosquitto max_queued_messages (1000 a "
        "client, then it drops; make it what comes in the longest outage, or 0) and persistence (off: a restart of it "
        "forgets)"
    )
}


def _task(name: str) -> str:
    return f"source:{name}"


def read_routes(settings: "Settings", clock: "Clock") -> list[Route]:
    """Return the webhook routes of a file. Raises ConfigError."""
    return [_route(name, source, settings, clock) for name, source in settings.webhooks.items()]


def _route(name: str, source: "WebhookSettings", settings: "Settings", clock: "Clock") -> Route:
    scheme = source.scheme
    return Route(
        name=name,
        path=source.path,
        function=source.function or "",
        verifier=make_verifier(scheme.scheme, secrets=scheme.reveal(), clock=clock, **scheme.options()),
        methods=tuple(source.methods or ()),
        invocation_type=source.invocation_type,
        format=source.format,
        format_options=source.format_options,
        body_max_bytes=source.body_max_bytes,
        deduplicate_s=float(source.deduplicate_s),
        async_payload_max_bytes=settings.invocation.async_payload_max_bytes,
        sender=sender_of(name, source, settings) if source.policy == EXPLICIT else None,
    )

"""A whole daemon in one process without disk, listeners or real time, for tests: what `bridge_app` of the plugin is."""

import asyncio
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar

from bridge.aws.clients import AwsClients
from bridge.config.load import load
from bridge.config.mappings import mapping_values
from bridge.core import limits
from bridge.core.errors import BridgeError, ConfigError
from bridge.core.function import FunctionVersion
from bridge.core.invocation import Invocation, InvocationResult
from bridge.core.mapping import EventSourceMapping, MappingState, parse_source
from bridge.core.push import Given
from bridge.core.queues import QueueStatus
from bridge.core.sources import MappingStatus
from bridge.core.stream import PutRecord
from bridge.daemon.composition import read_catalog
from bridge.daemon.push import PushParts, read_routes
from bridge.daemon.streams import Streams
from bridge.daemon.trial_sources import trial_sources
from bridge.daemon.trial_values import Data, Headers, HttpAnswer, Invoked, Unhandled, as_bytes, as_headers, readable
from bridge.destinations.spill import Spill
from bridge.events.http import HttpRequest
from bridge.invokers.remote import RemoteFunctions
from bridge.invokers.runtimes import Runtimes
from bridge.invokers.service import FunctionService
from bridge.pipeline.delivery import AsyncDelivery
from bridge.pipeline.dispatcher import Dispatcher
from bridge.pipeline.intake import JournalIntake
from bridge.pipeline.mappings import MappingSupervisor
from bridge.runtime.in_process import InProcessRuntime
from bridge.sources.pull.backlogs import JournalStreams
from bridge.sources.pull.local import JournalLocalStreams
from bridge.sources.push.routes import Route
from bridge.sources.push.signatures import Verdict, Verifier
from bridge.sources.push.webhook import WebhookSource
from bridge.testing.journal import MemoryJournal, MemoryOutcomes
from bridge.testing.store import MemoryDeadLetters, MemoryMarks, MemoryParked
from bridge.testing.streams import MemoryMappingStates, MemoryStreamMarks
from bridge.testing.virtual import VirtualClock, VirtualLoop
from bridge.util.aio import Supervisor
from bridge.util.asgi import HEADER_NAMES
from bridge.util.logs import to_standard_logging

DRAIN_MAX_S: Final = 8 * 3600.0
"""Virtual seconds that one `drain` may take: an asynchronous event lives for six hours at most."""
DRAIN_INVOCATIONS_MAX: Final = 10_000
FOREVER_ATTEMPTS: Final = 10
"""A batch that is retried without limit was tried so often: it waits for ever."""
_QUIET_S: Final = 1000.0
"""Nothing was invoked for so long (no window is longer) and nothing is due: what waits, waits for ever."""
_WINDOW_SETTLED_S: Final = 1.0
"""After an invocation: its window's state is stored with the next mark."""

_T = TypeVar("_T")


class BridgeApp:
    """An in-process daemon over a configuration.

    Pull sources are embedded streams, as with `bridge run --local`; journal, marks and dead letters are in memory.
    Handlers run in this process, one after the other. Time passes only in `drain` and `advance`, and at once.

    Raises:
        ConfigError: a mistake in the configuration, one line each.
    """

    def __init__(self, config: Path) -> None:
        self.invocations: list[Invoked] = []
        """What functions were invoked with, in order."""
        self.dead_letters: list[Unhandled] = []
        """What could not be handled, oldest first; as of the last `put`, `drain` or `advance`."""
        self._settings = load(config, local=True).settings
        self._catalog = read_catalog(self._settings)
        self._loop = VirtualLoop()
        self._clock = VirtualClock(self._loop)
        self._last_invoked_s = 0.0
        self._seen: dict[tuple[str, bytes], int] = {}
        self._mappings = {mapping.name: mapping for mapping in mapping_values(self._settings)}
        self._runtime = InProcessRuntime(self._invoked, region=self._settings.region)
        try:
            self._run(self._open())
            self._run_quietly()
            self._check()
        except BaseException:
            self.close()
            raise

    # --- what tests do ------------------------------------------------------------------------

    def put(
        self,
        name: str,
        value: Data = None,
        *,
        key: str | bytes | None = None,
        headers: Headers = (),
        method: str = "POST",
        query: str = "",
        topic: str = "",
        at: float | None = None,
    ) -> HttpAnswer | None:
        """Put one record into the stream of a mapping, or give one event to a push source: a request, message or tick.

        It waits for the next `drain`: what was put until then is read together. Only a RequestResponse route runs at
        once. A webhook's signature is not checked, no broker is asked, and no schedule ticks but by this.

        Args:
            name: of a mapping or of a source.
            value: bytes and text as they are, anything else as JSON; None: a tombstone, or a request without a body.
            key: of the record; records of one key stay in order. Of a DynamoDB stream: the item's, its attribute `id`
                or the one that holds it; None as value removes the item.
            headers: of the record or the request.
            method: of the request.
            query: of the request, percent-encoded.
            topic: of the message of an MQTT source.
            at: when a schedule ticks, epoch seconds; None: now.

        Returns:
            The answer to a request; None for anything else.

        Raises:
            BridgeError: there is no such mapping or source; nothing was stored.
        """
        stream, route = self._place(name)
        if stream:
            record = PutRecord(
                value=None if value is None else as_bytes(value),
                key=None if key is None else as_bytes(key),
                headers=tuple(as_headers(headers)),
            )
            self._run(self._local_streams.put(stream, [record]))
            return None
        if (source := self._others.get(route)) is not None:
            self._run(source.feed(Given(data=b"" if value is None else as_bytes(value), topic=topic, at=at)))
            return None
        return self._run(self._request(route, as_bytes(value), as_headers(headers), method=method, query=query))

    def invoke(self, function: str, event: Any) -> Invoked:
        """Invoke a function directly, as RequestResponse. Raises InvokeError: nothing ran."""
        self._run(self._service.invoke(function, request_id=str(uuid.uuid4()), payload=as_bytes(event)))
        return self.invocations[-1]

    def drain(self, *, within_s: float = DRAIN_MAX_S, attempts: int = FOREVER_ATTEMPTS) -> list[str]:
        """Let time pass until everything is handled, dead-lettered or waits for ever; open windows are ended.

        Args:
            within_s: at most so many virtual seconds.
            attempts: a batch that is retried without limit is given so many.

        Returns:
            What still waits and why, a line each; empty when nothing does.

        Raises:
            BridgeError: more than 10,000 invocations.
        """
        end = self._clock.monotonic() + within_s
        invocations_max = len(self.invocations) + DRAIN_INVOCATIONS_MAX
        self._last_invoked_s = self._clock.monotonic()

        def is_over() -> bool:
            if len(self.invocations) > invocations_max:
                raise BridgeError(f"drain: more than {DRAIN_INVOCATIONS_MAX} invocations; something goes round")
            return self._clock.monotonic() >= end or not self._waiting() or self._waits_for_ever(attempts)

        self._pass(is_over, end=end)
        return self._waiting()

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass; what is due meanwhile runs."""
        end = self._clock.monotonic() + seconds
        self._pass(lambda: self._clock.monotonic() >= end, end=end)

    @property
    def now(self) -> float:
        """Epoch seconds; a test begins at 2026-01-01T00:00:00Z."""
        return self._clock.time()

    def module(self, function: str) -> ModuleType:
        """Return the module of a function's handler, to look at or patch it. Raises FunctionNotFound."""
        return self._runtime.module(self._catalog.get(function).latest)

    def close(self) -> None:
        """End everything."""
        if not self._loop.is_closed():
            _outside_loops(self._end)
            self._runtime.close()
            self._loop.close()

    # --- building -----------------------------------------------------------------------------

    async def _open(self) -> None:
        settings, clock = self._settings, self._clock
        self._journal = MemoryJournal()
        self._journal.holds_group = True
        self._parked = MemoryParked()
        self._letters = MemoryDeadLetters(self._parked)
        self._marks = MemoryStreamMarks()
        outcomes, spill = MemoryOutcomes(), Spill(self._letters)
        self._tasks = Supervisor(
            clock=clock,
            delays_s=limits.TASK_RESTART_DELAYS_S,
            failures_max=limits.TASK_FAILURES_MAX,
            window_s=limits.TASK_FAILURES_WINDOW_S,
        )
        # Nothing elsewhere is invoked by a test.
        runtimes = Runtimes(
            local=self._runtime, remote=RemoteFunctions(AwsClients(clock=clock), clock=clock, is_allowed=False)
        )
        self._service = FunctionService(
            catalog=self._catalog, runtime=runtimes, clock=clock, outcomes=outcomes, hindrance=runtimes.hindrance
        )
        self._service.configure(
            account_concurrency=settings.invocation.account_concurrency,
            reserved=self._catalog.reserved(),
            sync_wait_s=settings.invocation.sync_wait_s,
        )
        self._journal_streams = journal_streams = JournalStreams(self._journal, self._marks)
        self._local_streams = JournalLocalStreams(journal_streams, clock=clock)
        streams = Streams(
            journal_streams,
            spill=spill,
            clock=clock,
            region=settings.region,
            account=settings.account,
            outbox=lambda _: spill,  # nothing is sent anywhere while a file is tried
        )
        streams.configure({}, kinds={name: source.form for name, source in settings.sources.items()})
        self._supervisor = MappingSupervisor(
            slots=self._service,
            streams=streams,
            spill=spill,
            journal=self._journal,
            states=MemoryMappingStates(),
            tasks=self._tasks,
            clock=clock,
        )
        delivery = AsyncDelivery(
            outcomes=outcomes, parked=self._parked, dead_letters=self._letters, destination=spill, clock=clock
        )
        self._dispatcher = Dispatcher(
            service=self._service,
            delivery=delivery,
            journal=self._journal,
            outcomes=outcomes,
            parked=self._parked,
            dead_letters=self._letters,
            marks=MemoryMarks(),
            clock=clock,
        )
        intake = JournalIntake(journal=self._journal, dispatcher=self._dispatcher, clock=clock, streams=journal_streams)
        self._webhooks = WebhookSource(
            intake=intake,
            invoker=self._service,
            clock=clock,
            account_id=settings.account,
            region=settings.region,
        )
        self._routes = {route.name: _unverified(route) for route in read_routes(settings, clock)}
        self._webhooks.set_routes(self._routes.values())
        parts = PushParts(settings=settings, intake=intake, invoker=self._service, clock=clock)
        self._others = trial_sources(parts, journal=self._journal, dead_letters=self._letters)
        await self._dispatcher.open([function.name for function in self._catalog.functions()])
        await self._supervisor.open(list(self._mappings.values()))
        self._tasks.start("lanes", self._dispatcher.run)
        self._supervisor.start()

    def _check(self) -> None:
        for status in self._supervisor.status():
            if status.state is MappingState.FAILED:
                raise ConfigError(f"mappings.{status.mapping.name}: {status.reason}")

    # --- putting ------------------------------------------------------------------------------

    def _place(self, name: str) -> tuple[str, str]:
        """Return the embedded stream or the push source that a name leads to, the other one empty."""
        mapping = self._mappings.get(name)
        if mapping is not None:
            address = parse_source(mapping.source)
            return (address.name, "") if address.kind == "local" else ("", address.name)
        if name in self._routes or name in self._others:
            return "", name
        known = ", ".join(sorted({*self._mappings, *self._routes, *self._others})) or "none"
        raise BridgeError(f"put: there is no mapping or source {name}; the configuration has: {known}")

    async def _request(
        self, name: str, body: bytes, headers: Sequence[tuple[str, bytes]], *, method: str, query: str
    ) -> HttpAnswer:
        sent = [(name.encode("latin-1"), value) for name, value in headers]
        given = {name.lower() for name, _ in sent}
        defaults = [(b"Host", b"localhost"), (b"Content-Type", b"application/json")]
        sent = [
            *(pair for pair in defaults if pair[0].lower() not in given),
            *sent,
            (b"Content-Length", b"%d" % len(body)),
        ]
        path = self._routes[name].path
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "path": path, "raw_path": path.encode("ascii"),
            "query_string": query.encode("ascii"), "client": ("127.0.0.1", 0),
            "headers": [(name.lower(), value) for name, value in sent], HEADER_NAMES: [name for name, _ in sent],
        }  # fmt: skip
        messages: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            messages.append(message)

        await self._webhooks(scope, receive, send)
        answered = {k.decode("latin-1"): v.decode("latin-1") for k, v in messages[0]["headers"]}
        text = b"".join(message.get("body", b"") for message in messages[1:])
        return HttpAnswer(status=messages[0]["status"], headers=answered, body=text)

    # --- time ---------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine to its end, and what it waits for."""

        def run() -> _T:
            task = self._loop.create_task(work)
            self._turn(task.done, end=None)
            return task.result()

        result = _outside_loops(run)
        self._refresh()
        return result

    def _run_quietly(self) -> None:
        """Run what is due now and takes no time."""
        self._pass(lambda: True, end=None)

    def _pass(self, is_over: Callable[[], bool], *, end: float | None) -> None:
        self._loop.call_soon(self._journal.release)
        _outside_loops(lambda: self._turn(is_over, end=end))
        self._refresh()

    def _turn(self, is_over: Callable[[], bool], *, end: float | None) -> None:
        """Run and let time pass, up to the monotonic time `end`, until it is over."""
        while not self._run_to_handler(is_over, end=end):
            self._runtime.run_next()

    def _run_to_handler(self, is_over: Callable[[], bool], *, end: float | None) -> bool:
        """Run until it is over, True, or a handler is to be called."""
        with to_standard_logging():
            while True:
                wait_s = self._loop.run_until_idle()
                if self._runtime.waiting:
                    return False
                if is_over():
                    return True
                left = float("inf") if end is None else end - self._clock.monotonic()
                step = left if wait_s is None else min(wait_s, left)
                if step == float("inf"):
                    raise BridgeError("nothing is left to do, and it is not over; this is a bug of bridge")
                self._loop.advance(step)

    def _end(self) -> None:
        with to_standard_logging():
            work = [task for task in asyncio.all_tasks(self._loop) if not task.done()]
            for task in work:
                task.cancel()
            for _ in range(100):
                self._loop.run_until_idle()
                if all(task.done() for task in work):
                    break

    # --- what waits ---------------------------------------------------------------------------

    def _invoked(self, version: FunctionVersion, invocation: Invocation, result: InvocationResult) -> None:
        key = version.name, invocation.payload
        self._seen[key] = attempt = self._seen.get(key, 0) + 1
        self._last_invoked_s = self._clock.monotonic()
        self.invocations.append(Invoked.of(version.name, invocation, result, attempt=attempt, at=self.now))

    def _refresh(self) -> None:
        self.dead_letters[:] = [readable(letter) for letter in self._letters.letters.values()]

    def _waiting(self) -> list[str]:
        """Say what is not finished, a line each."""
        lines = list[str]()
        for lane in self._dispatcher.status():
            if count := lane.waiting + lane.running + lane.parked:
                why = f" ({lane.reason})" if lane.reason else ""
                lines.append(f"function {lane.function}: {_count(count, 'event')} wait{'s' * (count == 1)}{why}")
        for status in self._supervisor.status():
            lines += self._waiting_of(status.mapping, status)
        return lines

    def _waiting_of(self, mapping: EventSourceMapping, status: MappingStatus) -> Iterator[str]:
        if status.state is not MappingState.ENABLED or status.queue is not None:
            if count := self._journal_streams.waiting(mapping.name):
                wait = f"{_count(count, 'record')} wait{'s' * (count == 1)}"
                why = f": it is {status.state.value}" if status.queue is None else _of_queue(status.queue)
                yield f"mapping {mapping.name}: {wait}{why}"
            return
        for shard in status.shards:
            count = max(shard.behind or 0, shard.buffered)
            if count or shard.running:
                tried = f", tried {_count(shard.attempts, 'time')}" if shard.attempts else ""
                why = f": {shard.reason or status.reason}" if shard.reason or status.reason else ""
                wait = f"{_count(count, 'record')} of {shard.shard} wait{'s' * (count == 1)}"
                yield f"mapping {mapping.name}: {wait}{tried}{why}"
        if mapping.tumbling_window_s:
            is_new = self._clock.monotonic() - self._last_invoked_s < _WINDOW_SETTLED_S
            if is_new or any(mark.state for mark in self._marks.marks.get(mapping.name, {}).values()):
                yield f"mapping {mapping.name}: a window is open"

    def _waits_for_ever(self, attempts: int) -> bool:
        """Whether nothing of what waits can end: only batches without limits, tried often, or nothing moves at all."""
        now = self._clock.monotonic()
        if now - self._last_invoked_s >= _QUIET_S and not self._is_due():
            return True
        if any(lane.waiting + lane.running + lane.parked for lane in self._dispatcher.status()):
            return False
        if any(
            s.queue is not None and self._journal_streams.waiting(s.mapping.name) for s in self._supervisor.status()
        ):
            return False  # a message that fails is a dead letter in the end
        waits = [
            (status.mapping, shard)
            for status in self._supervisor.status()
            if status.state is MappingState.ENABLED
            for shard in status.shards
            if shard.behind or shard.buffered or shard.running
        ]
        return bool(waits) and all(
            mapping.maximum_retry_attempts < 0 and mapping.maximum_record_age_s < 0 and shard.attempts >= attempts
            for mapping, shard in waits
        )

    def _is_due(self) -> bool:
        if any(entry.due_at > self.now for entry in self._parked.entries.values()):
            return True
        shards = [shard for status in self._supervisor.status() for shard in status.shards]
        return any(shard.due_at is not None and shard.due_at > self.now for shard in shards)


class _Unverified(Verifier):
    """Lets everything in."""

    def check(self, request: HttpRequest) -> Verdict:
        """Return a good verdict."""
        del request
        return Verdict(ok=True)


def _unverified(route: Route) -> Route:
    """Return a route that believes its sender; secrets in headers stay out of events as before."""
    verifier = type("Unverified", (_Unverified,), {"hidden_headers": route.verifier.hidden_headers})
    return replace(route, verifier=verifier())


def _of_queue(queue: QueueStatus) -> str:
    why = queue.reason or queue.failure
    return f": {why}" if why else ""


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _outside_loops(work: Callable[[], _T]) -> _T:
    """Call it where no event loop runs: in a thread of its own, waited for, when the caller is a coroutine's."""
    if not _is_in_loop():
        return work()
    ends: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            ends.append(work())
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            errors.append(error)

    thread = threading.Thread(target=run, name="bridge_app")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return ends[0]


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True

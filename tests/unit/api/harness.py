"""The api over fakes: services in memory, real replays, redrives and invocations, and a client without a network."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from bridge.api.app import AccessRules, ApiApp, ReloadResult, Services
from bridge.core.errors import FunctionNotFound, InvokeError, StreamNotFound
from bridge.core.function import Function, FunctionVersion, function_arn
from bridge.core.invocation import Attempt, AttemptStatus, Condition, DeadLetter, InvocationType
from bridge.core.mapping import EventSourceMapping, MappingState
from bridge.core.ports import LaneStatus, Receipt
from bridge.core.record import Record
from bridge.core.sources import MappingStatus, RecordReader
from bridge.core.stream import PutRecord
from bridge.destinations.spill import Spill
from bridge.invokers.service import FunctionService
from bridge.pipeline.outbox import OutboxSender
from bridge.pipeline.redrive import Redrives
from bridge.pipeline.replay import Replays, StreamParts
from bridge.testing.journal import MemoryJournal, MemoryOutcomes
from bridge.testing.mappings import MemoryMappings
from bridge.testing.outbox import MemoryOutbox, ScriptedTargets
from bridge.testing.push import MemoryPushSources
from bridge.testing.runtime import ScriptedRuntime
from bridge.testing.source import ScriptedStream
from bridge.testing.store import MemoryDeadLetters, MemoryJobs, MemoryParked
from bridge.util.clocks import SystemClock
from tests.harness import wait_until

TOKEN = "secret-token-canary"
NOW = 1_767_225_600.0


class QuickClock(SystemClock):
    """The system's clock with short polls: tests need not wait for them. Deadlines keep their length."""

    def __init__(self) -> None:
        super().__init__()
        self.sleeps = 0

    async def sleep(self, delay_s: float) -> None:
        self.sleeps += 1
        await asyncio.sleep(0.002 if delay_s <= 0.5 else delay_s)


class FakeCatalog:
    def __init__(self) -> None:
        self.known: dict[str, Function] = {}

    def add(self, name: str) -> None:
        latest = FunctionVersion(name=name, arn=function_arn(name), code="/code", revision="r1", handler="app.handler")
        self.known[name] = Function(name=name, latest=latest)

    def get(self, name: str) -> Function:
        if name not in self.known:
            raise FunctionNotFound(f"Function not found: {function_arn(name)}")
        return self.known[name]

    def functions(self) -> list[Function]:
        return list(self.known.values())


class FakeLanes:
    def __init__(self) -> None:
        self.explained = "a free slot of hello"

    def status(self) -> list[LaneStatus]:
        return [
            LaneStatus(
                function="hello", waiting=2, waiting_bytes=20, running=1, parked=0, oldest_at=NOW, state="active"
            )
        ]

    async def explain(self, record: Record) -> str:
        return self.explained


class FakeIntake:
    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal
        self.fail_with: Exception | None = None

    async def submit(self, record: Record, *, deduplicate_s: float = 0.0) -> Receipt:
        if self.fail_with is not None:
            raise self.fail_with
        return Receipt(id=(await self._journal.append(record)).id)

    def archive(self, record: Record) -> None:
        self._journal.archive(record)


class FakeStreams:
    """The embedded stream `clicks`, which remembers what was put."""

    def __init__(self) -> None:
        self.records: list[PutRecord] = []
        self.puts: list[int] = []
        self.fail_with: list[Exception] = []
        """Raised by the next puts, one each."""

    async def put(self, stream: str, records: Sequence[PutRecord]) -> Sequence[int]:
        if stream != "clicks":
            raise StreamNotFound(f"no mapping reads local://{stream}")
        if self.fail_with:
            raise self.fail_with.pop(0)
        self.puts.append(len(records))
        self.records += records
        return range(len(self.records) - len(records), len(self.records))


class FakeLogs:
    def __init__(self) -> None:
        self.lines: deque[tuple[float, str, str]] = deque()
        self.asked: list[tuple[str, ...]] = []

    async def tail(
        self, *functions: str, lines: int, follow: bool, stream: str = ""
    ) -> AsyncIterator[tuple[float, str, str]]:
        self.asked.append(functions)
        for line in [line for line in self.lines if line[1].startswith(stream)][-lines:] if lines else []:
            yield line
        while follow:
            await asyncio.sleep(0.001)
            while self.lines and self.lines[-1][2] == "new":
                yield self.lines.pop()


class Answered:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines() if line]

    @property
    def error(self) -> str:
        """The one line of an error."""
        assert self.body.count(b"\n") == 1, self.body
        assert self.body.endswith(b"\n")
        value = self.json()
        assert list(value) == ["error"], value
        return value["error"]


class World:
    """Everything behind one api, and the api."""

    def __init__(
        self, *, heartbeat_s: float = 10.0, hosts: tuple[str, ...] = (), rules: AccessRules | None = None
    ) -> None:
        self.clock = QuickClock()
        self.catalog = FakeCatalog()
        self.catalog.add("hello")
        self.journal, self.outcomes = MemoryJournal(), MemoryOutcomes()
        self.parked, self.jobs = MemoryParked(), MemoryJobs()
        self.letters = MemoryDeadLetters(self.parked)
        self.runtime = ScriptedRuntime(self.clock)
        self.lanes, self.logs, self.intake = FakeLanes(), FakeLogs(), FakeIntake(self.journal)
        self.invoker = FunctionService(
            catalog=self.catalog, runtime=self.runtime, clock=self.clock, outcomes=self.outcomes, sync_wait_s=0.001
        )
        self.woken: list[str] = []
        self.problems: list[str] = []
        self.troubles: list[str] = []
        self.refused: list[tuple[Record, Condition, str]] = []
        self.facts: list[tuple[str, bool, str]] = [("landlock", True, "ABI 7")]
        self.reloaded = ReloadResult(ok=True, changes=("functions.hello: timeout_s 3 -> 5",))
        self._tasks: set[asyncio.Task[None]] = set()
        self.mappings = MemoryMappings()
        self.replays = Replays(
            journal=self.journal, outcomes=self.outcomes, dead_letters=self.letters, jobs=self.jobs,
            invoker=self.invoker, clock=self.clock, spawn=self._spawn,
            streams=StreamParts(mappings=self.mappings, slots=self.invoker, spill=Spill(self.letters)),
        )  # fmt: skip
        self.redrives = Redrives(
            dead_letters=self.letters, outcomes=self.outcomes, jobs=self.jobs, clock=self.clock, spawn=self._spawn,
            wake=self.woken.append,
        )  # fmt: skip
        self.outbox, self.targets = MemoryOutbox(self.letters), ScriptedTargets()
        self.sender = OutboxSender(
            store=self.outbox, dead_letters=self.letters, transports=self.targets, outcomes=self.outcomes,
            clock=self.clock,
        )  # fmt: skip
        self.streams = FakeStreams()
        self.sources = MemoryPushSources()
        self.readers: list[RecordReader] = []
        self.services = Services(
            journal=self.journal, outcomes=self.outcomes, parked=self.parked, dead_letters=self.letters,
            outbox=self.outbox, sender=self.sender, jobs=self.jobs, replays=self.replays, redrives=self.redrives, lanes=self.lanes, invoker=self.invoker,
            intake=self.intake, refuse=self._refuse, logs=self.logs, functions=self.catalog.functions, function=self.catalog.get, reload=self._reload,
            readiness=lambda: self.problems, facts=lambda: self.facts, troubles=lambda: self.troubles, version="9.9.9", clock=self.clock,
            mappings=self.mappings, streams=self.streams, sources=self.sources, readers=lambda record: self.readers,
            async_payload_max_bytes=1000, status=lambda: {"listeners": {}},
        )  # fmt: skip
        self.app = ApiApp(
            self.services, token=TOKEN, rules=rules or AccessRules(), hosts=hosts, heartbeat_s=heartbeat_s
        )

    def stream(self, name: str, *shards: str) -> ScriptedStream:
        """Make a mapping with a stream behind it, for replays."""
        mapping = EventSourceMapping(name=name, source=f"kafka://main/{name}", function="hello", batch_size=3)
        self.mappings.add(
            MappingStatus(mapping=mapping, state=MappingState.ENABLED, reason="", result="OK", modified_at=NOW)
        )
        made = ScriptedStream(self.clock, shards=shards)
        made.is_remote = True
        self.mappings.sources[name] = made
        return made

    async def _refuse(self, record: Record, condition: Condition, error: InvokeError) -> None:
        self.refused.append((record, condition, str(error)))

    async def _reload(self) -> ReloadResult:
        return self.reloaded

    def _spawn(self, work: Any, name: str) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def polled(self, times: int = 2) -> None:
        """Wait until who follows something has looked again, and is through with what it saw."""
        through = self.clock.sleeps + times
        await wait_until(lambda: self.clock.sleeps >= through, description="it has looked again")

    def is_stopping(self, replay: str) -> bool:
        """Tell whether a replay that was made was asked to pause or to end; one with nothing in flight ends at once."""
        run = self.replays._runs.get(replay)
        return run is None or run.stop is not None

    async def close(self) -> None:
        self.app.close()
        await self.replays.close()
        await self.redrives.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- stored things --------------------------------------------------------------------------
    def store(self, number: int, **changes: Any) -> Record:
        record = Record(
            id=event_id(number), source="hello", function="hello", invocation_type=InvocationType.EVENT,
            received_at=NOW + number, payload=b'{"n":%d}' % number,
        )  # fmt: skip
        return self.journal._put(replace(record, **changes))

    def attempt(self, record: Record, status: AttemptStatus, number: int = 1, **changes: Any) -> None:
        attempt = Attempt(
            position=record.position, request_id=record.id, function=record.function, number=number, status=status,
            started_at=record.received_at, duration_ms=1.5, version="$LATEST",
        )  # fmt: skip
        self.outcomes.append(replace(attempt, **changes))

    def bury(self, number: int, **changes: Any) -> DeadLetter:
        letter = DeadLetter(
            id=event_id(number), queue="default", function="hello", source="hello", received_at=NOW, dead_at=NOW + number,
            condition=Condition.RETRIES_EXHAUSTED, attempts=3, payload=b'{"n":%d}' % number, error_type="ValueError",
            error_message="no",
        )  # fmt: skip
        letter = replace(letter, **changes)
        self.letters.letters[letter.queue, letter.id] = letter
        return letter

    # --- requests -------------------------------------------------------------------------------
    async def ask(
        self,
        method: str,
        target: str,
        *,
        body: bytes | dict[str, Any] = b"",
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
        token: str | None = TOKEN,
        host: str | None = "127.0.0.1:8581",
        until: int | None = None,
    ) -> Answered:
        """Make one request; a stream is left after `until` lines."""
        given = list((headers or {}).items()) if not isinstance(headers, list) else headers
        if host is not None:
            given = [("host", host), *given]
        if token is not None:
            given = [("authorization", f"Bearer {token}"), *given]
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        path, _, query = target.partition("?")
        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(),
            "query_string": quote(query, safe="%&=+:,*-._~").encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given],
        }  # fmt: skip
        left, parts, state = asyncio.Event(), [], {"sent": False, "status": 0, "headers": {}}

        async def receive() -> dict[str, Any]:
            if not state["sent"]:
                state["sent"] = True
                return {"type": "http.request", "body": data, "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                state["status"] = message["status"]
                state["headers"] = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
                return
            parts.append(message.get("body", b""))
            if until is not None and b"".join(parts).count(b"\n") >= until:
                left.set()

        await self.app(scope, receive, send)
        return Answered(state["status"], state["headers"], b"".join(parts))

    async def get(self, path: str, **options: Any) -> Answered:
        return await self.ask("GET", f"/admin/v1{path}", **options)

    async def post(self, path: str, body: bytes | dict[str, Any] = b"", **options: Any) -> Answered:
        return await self.ask("POST", f"/admin/v1{path}", body=body, **options)


def event_id(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-000000000000"

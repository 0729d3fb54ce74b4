"""Asynchronous events for a remote that misbehaves: none is lost, none runs again except after *unknown*."""

import asyncio
import random
import uuid
from collections import Counter, defaultdict

import pytest
from botocore import exceptions as boto
from botocore.exceptions import ClientError

from bridge.core.arn import parse_arn
from bridge.core.connection import AwsConnection
from bridge.core.errors import InvokeDenied, RuntimeUnavailable, Throttled
from bridge.core.function import EventInvokeConfig, Function, FunctionVersion, RemoteFunction
from bridge.core.invocation import AttemptStatus, InvocationType
from bridge.core.record import Record
from bridge.destinations.spill import Spill
from bridge.invokers.remote import RemoteFunctions
from bridge.invokers.runtimes import Runtimes
from bridge.invokers.service import FunctionService
from bridge.pipeline.delivery import AsyncDelivery
from bridge.pipeline.dispatcher import Dispatcher
from bridge.testing.clock import ManualClock, settle
from bridge.testing.journal import MemoryJournal, MemoryOutcomes
from bridge.testing.runtime import ScriptedRuntime
from bridge.testing.store import MemoryDeadLetters, MemoryMarks, MemoryParked

ARN = "arn:aws:lambda:eu-central-1:123456789012:function:billing"
URL = "http://127.0.0.1:1"


def client_error(code, status, **members):
    response = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}, **members}
    return ClientError(response, "Invoke")


class Body:
    def __init__(self, data: bytes) -> None:
        self.data = data

    async def read(self, _size: int) -> bytes:
        data, self.data = self.data, b""
        return data


class Lambda:
    """The far side: what it does with the n-th call is `script(n)`; it knows which events ran and how that was told."""

    def __init__(self, clock) -> None:
        self.clock = clock
        self.script = lambda _number: "ok"
        self.calls: list[tuple[float, bytes]] = []
        self.runs: Counter[bytes] = Counter()
        self.repeatable: Counter[bytes] = Counter()
        """Ends after which an event may run once more: a function error, or one that nobody was told of."""
        self.running = self.running_max = 0
        self.duration_s = 0.1

    async def client(self, _connection, _service, **_options):
        return self

    async def invoke(self, *, Payload: bytes, **asked):
        self.calls.append((self.clock.monotonic(), Payload))
        end = self.script(len(self.calls))
        if end == "throttle":
            raise client_error("TooManyRequestsException", 429, Reason="ConcurrentInvocationLimitExceeded")
        if end == "down":
            raise boto.EndpointConnectionError(endpoint_url=URL)
        if end == "denied":
            raise client_error("AccessDeniedException", 403)
        if end == "unstarted":
            raise client_error("ENILimitReachedException", 502)
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        await self.clock.sleep(self.duration_s)
        self.running -= 1
        if end in ("lost answer", "service"):
            self.repeatable[Payload] += 1
        if end == "service":
            raise client_error("ServiceException", 500)
        self.runs[Payload] += 1
        if end == "lost answer":
            raise boto.ReadTimeoutError(endpoint_url=URL)
        if end == "error":
            self.repeatable[Payload] += 1
            return {"Payload": Body(b'{"errorType":"E","errorMessage":"m"}'), "FunctionError": "Unhandled"}
        assert asked["InvocationType"] in ("RequestResponse", "Event")
        return {"Payload": Body(b"null"), "ExecutedVersion": "1"}


class World:
    def __init__(self, *, handover=False, is_allowed=True, **config) -> None:
        self.clock = ManualClock()
        self.far = Lambda(self.clock)
        self.journal, self.outcomes, self.parked = MemoryJournal(), MemoryOutcomes(), MemoryParked()
        self.dead = MemoryDeadLetters(self.parked)
        remote = RemoteFunction(
            arn=parse_arn(ARN), connection=AwsConnection(name="", region="eu-central-1"), handover=handover
        )
        version = FunctionVersion(name="billing", arn=ARN, code="", revision="1", handler="", remote=remote)
        self.function = Function(name="billing", latest=version, event_invoke=EventInvokeConfig(**config))
        self.remote = RemoteFunctions(self.far, clock=self.clock, is_allowed=is_allowed, rng=random.Random(3))
        runtimes = Runtimes(local=ScriptedRuntime(self.clock), remote=self.remote)
        self.service = FunctionService(catalog=self, runtime=runtimes, clock=self.clock, hindrance=runtimes.hindrance)
        self.delivery = AsyncDelivery(
            outcomes=self.outcomes, parked=self.parked, dead_letters=self.dead, destination=Spill(self.dead),
            clock=self.clock, rng=random.Random(4),
        )  # fmt: skip
        self.dispatcher = Dispatcher(
            service=self.service, delivery=self.delivery, journal=self.journal, outcomes=self.outcomes,
            parked=self.parked, dead_letters=self.dead, marks=MemoryMarks(), clock=self.clock,
        )  # fmt: skip
        self.task: asyncio.Task[None] | None = None

    def get(self, _name: str) -> Function:
        return self.function

    async def start(self) -> None:
        await self.dispatcher.open(["billing"])
        self.task = asyncio.create_task(self.dispatcher.run())
        self.dispatcher.kick()
        await settle()

    async def put(self, count: int) -> list[Record]:
        found = []
        for number in range(count):
            self.dispatcher.lane("billing").reserve(10)
            record = Record(
                id=str(uuid.UUID(int=number + 1)), source="hook", function="billing",
                invocation_type=InvocationType.EVENT, received_at=self.clock.time(), payload=b"%d" % number,
            )  # fmt: skip
            found.append(await self.journal.append(record))
        await settle()
        return found

    async def until_done(self, hours: float = 7.0) -> None:
        end = self.clock.monotonic() + hours * 3600
        while self.clock.monotonic() < end:
            (lane,) = self.dispatcher.status()
            if not (lane.waiting or lane.running or lane.parked):
                return
            await self.clock.advance(min(1.0, end - self.clock.monotonic()))
        raise AssertionError(f"unfinished: {self.dispatcher.status()}")

    async def close(self) -> None:
        await self.dispatcher.drain(deadline_s=0.0)
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        await self.remote.close()


@pytest.fixture
async def worlds(threads_at_once):
    made: list[World] = []

    async def make(**config) -> World:
        world = World(**config)
        made.append(world)
        await world.start()
        return world

    yield make
    for world in made:
        await world.close()


@pytest.fixture
def threads_at_once(monkeypatch):
    async def at_once(function, /, *args, **kwargs):
        await asyncio.sleep(0)
        return function(*args, **kwargs)

    monkeypatch.setattr(asyncio, "to_thread", at_once)


ENDS = ("ok", "ok", "ok", "error", "throttle", "down", "denied", "unstarted", "service", "lost answer")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
async def test_nothing_is_lost_and_nothing_runs_again_except_after_unknown(worlds, seed):
    world = await worlds()
    rng = random.Random(seed)
    world.far.script = lambda _number: rng.choice(ENDS)
    records = await world.put(60)

    await world.until_done()

    dead = {letter.id for letter in world.dead.letters.values()}
    for record in records:
        rows = world.outcomes.for_events([record])[record.position]
        assert rows[-1].status is (AttemptStatus.DEAD if record.id in dead else AttemptStatus.OK)
        assert world.far.runs[record.payload] <= 1 + world.far.repeatable[record.payload]
        counted = [row for row in rows if row.status in (AttemptStatus.FAILED, AttemptStatus.DEAD)]
        assert len(counted) <= 3
        assert record.id in dead or world.far.runs[record.payload] >= 1


async def test_a_remote_that_is_down_for_an_hour_is_asked_seldom_and_nothing_is_counted(worlds):
    world = await worlds()
    world.far.script = lambda _number: "down"
    records = await world.put(500)
    await world.clock.advance(3600)
    asked = len(world.far.calls)
    world.far.script = lambda _number: "ok"

    await world.until_done(0.5)

    # All that was sent before the first answer, then one at a time: 1 s to 5 min apart.
    assert asked <= 500 + 40
    assert {} == world.dead.letters
    assert all(1 == world.far.runs[record.payload] for record in records)


async def test_events_behind_an_open_circuit_wait_unattempted_and_say_why(worlds):
    world = await worlds()
    world.far.script = lambda _number: "down"
    await world.put(1)
    records = await world.put(20)
    await world.clock.advance(0.5)

    assert (1, 20) == (len(world.far.calls), world.dispatcher.status()[0].waiting)
    assert await world.dispatcher.explain(records[-1]) == (
        'waits: backing off, 1 s after ServiceException: function billing: Could not connect to the endpoint URL: "http://127.0.0.1:1"'
    )
    world.far.script = lambda _number: "ok"
    world.far.duration_s = 3600.0
    await world.clock.advance(30)
    (lane,) = world.dispatcher.status()

    assert ("hindered", 2) == (lane.state, len(world.far.calls))
    assert await world.dispatcher.explain(records[-1]) == (
        'waits: hindered, function billing: Could not connect to the endpoint URL: "http://127.0.0.1:1"; one invocation tries it now'
    )


async def test_a_remote_that_takes_ten_at_once_is_found_out(worlds):
    world = await worlds()
    far = world.far
    far.duration_s = 2.0
    far.script = lambda _number: "throttle" if far.running >= 10 else "ok"
    records = await world.put(200)

    await world.until_done(1.0)

    assert all(1 == far.runs[record.payload] for record in records)
    assert {} == world.dead.letters
    assert 10 == far.running_max
    by_second: dict[int, int] = defaultdict(int)
    for at, _ in far.calls:
        by_second[int(at)] += 1
    assert len(far.calls) < 2.5 * 200, sorted(by_second.items())


async def test_handed_over_is_done_and_shown_as_such(worlds):
    world = await worlds(handover=True)
    (record,) = await world.put(1)

    await world.until_done(0.1)

    assert [AttemptStatus.HANDED_OVER] == [row.status for row in world.outcomes.for_events([record])[record.position]]


async def test_what_is_not_allowed_waits_with_its_reason(worlds):
    world = await worlds(is_allowed=False)
    (record,) = await world.put(1)
    await world.clock.advance(5)

    assert [] == world.far.calls
    assert f"waits: hindered, function billing is remote ({ARN}): invoked with --allow-remote only" == (
        await world.dispatcher.explain(record)
    )


class TestCallers:
    async def test_is_asked_once_and_told(self, worlds):
        world = await worlds()
        world.far.script = lambda _number: "down"

        with pytest.raises(RuntimeUnavailable):
            await world.service.invoke("billing", request_id="r", payload=b"{}")
        with pytest.raises(RuntimeUnavailable, match="asked again in"):
            await world.service.invoke("billing", request_id="r", payload=b"{}")

        assert 1 == len(world.far.calls)

    async def test_a_throttle_is_429_and_not_tried_again(self, worlds):
        world = await worlds()
        world.far.script = lambda _number: "throttle"

        with pytest.raises(Throttled) as caught:
            await world.service.invoke("billing", request_id="r", payload=b"{}")

        assert ("ConcurrentInvocationLimitExceeded", 1) == (caught.value.reason, len(world.far.calls))

    async def test_a_short_hold_is_waited_out_like_any_limit(self, worlds):
        world = await worlds()
        world.far.script = lambda number: "throttle" if number == 1 else "ok"
        with pytest.raises(Throttled):
            await world.service.invoke("billing", request_id="r", payload=b"{}")
        await world.clock.advance(0.5)

        second = asyncio.ensure_future(world.service.invoke("billing", request_id="r", payload=b"{}"))
        await world.clock.advance(0.7)

        assert second.done() and second.result().is_ok

    async def test_what_is_not_allowed_is_refused(self, worlds):
        world = await worlds(is_allowed=False)

        with pytest.raises(InvokeDenied, match="--allow-remote"):
            await world.service.invoke("billing", request_id="r", payload=b"{}")

"""The contract of queues (core/queues.py): the scripted one, and the embedded one on a journal.

1. a received message is nobody else's while it is hidden, and comes again after that, with its count risen
2. deleted messages stay away, deleting twice is fine
3. hiding for longer and handing back at once both work; a receipt of an older receive counts no more
4. of a FIFO queue a group gives nothing while something of it is hidden; messages of a group come in order
5. a receive waits, and ends at once when something comes
6. counts
7. what was received too often is a dead letter and never handed out again
8. the embedded one: all of it over restarts
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import orjson
import pytest

from bridge.core.invocation import DeadLetter
from bridge.core.mapping import EventSourceMapping
from bridge.core.queues import Message, QueueFacts, QueueSource
from bridge.core.stream import PutRecord
from bridge.sources.pull.backlogs import JournalStreams
from bridge.sources.pull.local import JournalLocalStreams, local_event_source
from bridge.sources.pull.local_queue import LocalQueue
from bridge.testing.journal import MemoryJournal
from bridge.testing.queue import ScriptedQueue
from bridge.testing.streams import MemoryStreamMarks
from bridge.testing.virtual import VirtualClock, VirtualLoop

Story = Callable[["Harness"], Awaitable[None]]


class Harness:
    """A queue and its one reader."""

    clock: VirtualClock
    queue: QueueSource

    async def put(self, *values: object, group: str = "") -> None:
        raise AssertionError

    async def reopen(self) -> QueueFacts:
        raise AssertionError

    def dead(self) -> list[object]:
        raise AssertionError

    async def receive(self, count: int = 10, *, wait_s: float = 0.0, hidden_s: float = 30.0) -> Sequence[Message]:
        return await self.queue.receive(records_max=count, wait_s=wait_s, hidden_s=hidden_s)

    async def values(self, count: int = 10, **more: float) -> list[object]:
        return [orjson.loads(message.body) for message in await self.receive(count, **more)]


class Scripted(Harness):
    def __init__(self, clock: VirtualClock, *, is_fifo: bool) -> None:
        self.clock = clock
        self.origin = ScriptedQueue(clock, is_fifo=is_fifo, max_receive_count=3)
        self.queue = self.origin.consumer()

    async def put(self, *values: object, group: str = "") -> None:
        self.origin.put(*values, group=group)

    async def reopen(self) -> QueueFacts:
        await self.queue.close()
        self.queue = self.origin.consumer()
        return await self.queue.open()

    def dead(self) -> list[object]:
        return [stored.value for stored in self.origin.dead]


class Letters:
    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []

    async def send(self, letter: DeadLetter) -> None:
        self.letters.append(letter)


class Embedded(Harness):
    def __init__(self, clock: VirtualClock, *, is_fifo: bool) -> None:
        self.clock = clock
        self.name = "jobs.fifo" if is_fifo else "jobs"
        self.journal = MemoryJournal()
        self.marks = MemoryStreamMarks()
        self.letters = Letters()
        self.streams = JournalStreams(self.journal, self.marks)
        self.mapping = EventSourceMapping(
            name="m", source=f"local://{self.name}?as=sqs&max_receive_count=3", function="f"
        )
        self.make()

    def make(self) -> None:
        stream = local_event_source(self.mapping, streams=self.streams, clock=self.clock)
        self.origin = LocalQueue(self.mapping, stream, spill=self.letters, clock=self.clock)
        self.queue = self.origin.consumer()

    async def put(self, *values: object, group: str = "") -> None:
        local = JournalLocalStreams(self.streams, clock=self.clock)
        records = [PutRecord(value=orjson.dumps(value), key=group.encode() or None) for value in values]
        await local.put(self.name, records)
        await asyncio.sleep(0.05)

    async def reopen(self) -> QueueFacts:
        """A crash, without a close, and a new daemon on what is stored."""
        self.streams = JournalStreams(self.journal, self.marks)
        self.make()
        facts = await self.queue.open()
        await asyncio.sleep(0.05)
        return facts

    def dead(self) -> list[object]:
        records = [record for letter in self.letters.letters for record in orjson.loads(letter.payload)["Records"]]
        return [orjson.loads(record["body"]) for record in records]


def run(make: Callable[[VirtualClock], Harness], story: Story) -> None:
    loop = VirtualLoop()
    try:

        async def live() -> None:
            harness = make(VirtualClock(loop))
            await harness.queue.open()
            await story(harness)
            await harness.queue.close()

        task = loop.create_task(live())
        while not task.done():
            wait_s = loop.run_until_idle()
            if not task.done():
                assert wait_s is not None, "nothing is left that could happen"
                loop.advance(wait_s)
        task.result()
    finally:
        for left in asyncio.all_tasks(loop):
            left.cancel()
        loop.run_until_idle()
        loop.close()


@pytest.fixture(params=[Scripted, Embedded])
def kind(request: pytest.FixtureRequest) -> type[Harness]:
    made: type[Harness] = request.param
    return made


@pytest.fixture
def standard(kind: type[Harness]) -> Callable[[Story], None]:
    return lambda story: run(lambda clock: kind(clock, is_fifo=False), story)  # type: ignore[call-arg]


@pytest.fixture
def fifo(kind: type[Harness]) -> Callable[[Story], None]:
    return lambda story: run(lambda clock: kind(clock, is_fifo=True), story)  # type: ignore[call-arg]


def test_a_received_message_is_hidden_and_comes_again_after_that(standard: Callable[[Story], None]) -> None:
    async def story(it: Harness) -> None:
        await it.put("a")
        (first,) = await it.receive(hidden_s=30)
        assert await it.receive(wait_s=29) == []
        (second,) = await it.receive(wait_s=2)

        assert first.id == second.id
        assert (1, 2) == (first.receive_count, second.receive_count)
        assert first.receipt != second.receipt
        assert orjson.loads(second.fragment)["messageId"] == second.id

    standard(story)


def test_deleted_messages_stay_away(standard: Callable[[Story], None]) -> None:
    async def story(it: Harness) -> None:
        await it.put("a", "b", "c")
        messages = await it.receive()
        assert not (await it.queue.delete(messages[:2])).failed
        await it.queue.delete(messages[:1])

        assert await it.values(wait_s=40) == ["c"]

    standard(story)


def test_a_message_is_hidden_for_longer_or_handed_back(standard: Callable[[Story], None]) -> None:
    async def story(it: Harness) -> None:
        await it.put("a", "b")
        a, b = await it.receive(hidden_s=10)
        assert not (await it.queue.hide([(a, 100), (b, 0)])).gone
        assert [m.id for m in await it.receive(hidden_s=500)] == [b.id]
        assert await it.receive(wait_s=90) == []
        assert [m.id for m in await it.receive(wait_s=15)] == [a.id]

    standard(story)


def test_the_receipt_of_an_older_receive_counts_no_more(standard: Callable[[Story], None]) -> None:
    async def story(it: Harness) -> None:
        await it.put("a")
        (old,) = await it.receive(hidden_s=1)
        (new,) = await it.receive(wait_s=5)
        refused = await it.queue.hide([(old, 100)])
        await it.queue.delete([old])

        assert refused.gone == (old,)
        assert not (await it.queue.hide([(new, 0)])).gone
        assert await it.values() == ["a"]

    standard(story)


def test_a_group_gives_nothing_while_something_of_it_is_hidden(fifo: Callable[[Story], None]) -> None:
    async def story(it: Harness) -> None:
        await it.put("a1", "a2", "a3", group="a")
        await it.put("b1", group="b")
        a1, a2 = await it.receive(2)
        assert [orjson.loads(m.body) for m in (a1, a2)] == ["a1", "a2"]
        assert await it.values() == ["b1"]
        await it.queue.delete([a1])
        assert await it.values() == []
        await it.queue.hide([(a2, 5)])
        assert await it.values() == []

        assert await it.values(wait_s=10) == ["a2", "a3"]

    fifo(story)


def test_a_receive_ends_as_soon_as_something_comes(standard: Callable[[Story], None]) -> None:
    async def story(it: Harness) -> None:
        waiting = asyncio.create_task(it.values(wait_s=20))
        await asyncio.sleep(5)
        assert not waiting.done()
        await it.put("a")
        await asyncio.sleep(2)

        assert waiting.done()
        assert waiting.result() == ["a"]

    standard(story)


def test_it_says_how_much_there_is(standard: Callable[[Story], None]) -> None:
    async def story(it: Harness) -> None:
        await it.put(*"abcde")
        messages = await it.receive(2)
        facts = await it.queue.look()
        assert (3, 2) == (facts.visible, facts.in_flight)
        await it.queue.delete(messages)
        facts = await it.queue.look()

        assert (3, 0, 3) == (facts.visible, facts.in_flight, facts.max_receive_count)

    standard(story)


def test_what_was_received_too_often_is_a_dead_letter(standard: Callable[[Story], None]) -> None:
    async def story(it: Harness) -> None:
        await it.put("a")
        for _ in range(3):
            (message,) = await it.receive()
            await it.queue.hide([(message, 0)])
        assert await it.receive(wait_s=1) == []

        assert it.dead() == ["a"]
        facts = await it.queue.look()
        assert (0, 0) == (facts.visible, facts.in_flight)

    standard(story)


# --- the embedded one ---


def test_what_is_deleted_stays_so_over_a_crash_and_nothing_else_is_lost() -> None:
    async def story(it: Harness) -> None:
        await it.put(*range(20))
        messages = await it.receive(10)
        await it.queue.delete([messages[3], messages[7]])
        await it.reopen()
        found = await it.values(10) + await it.values(10)

        assert sorted(found, key=str) == sorted(set(range(20)) - {3, 7}, key=str)

    run(lambda clock: Embedded(clock, is_fifo=False), story)


def test_receives_are_counted_over_a_crash() -> None:
    async def story(it: Harness) -> None:
        await it.put("poison")
        for _ in range(3):
            (message,) = await it.receive(wait_s=60)
            await it.queue.hide([(message, 0)])
            (message,) = await it.receive(wait_s=60) or [None]  # type: ignore[list-item]
            if message is None:
                break
            await it.reopen()
        assert await it.receive(wait_s=60) == []

        assert it.dead() == ["poison"]

    run(lambda clock: Embedded(clock, is_fifo=False), story)


def test_records_show_as_sqs_shows_them() -> None:
    async def story(it: Harness) -> None:
        assert isinstance(it, Embedded)
        local = JournalLocalStreams(it.streams, clock=it.clock)
        await local.put(it.name, [PutRecord(value=b"hello", key=b"g", headers=(("Title", b"x"), ("Raw", b"\xff")))])
        await asyncio.sleep(0.05)
        (message,) = await it.receive()
        record = orjson.loads(message.fragment)

        assert ("hello", "aws:sqs", "arn:aws:sqs:us-east-1:000000000000:jobs.fifo") == tuple(
            record[name] for name in ("body", "eventSource", "eventSourceARN")
        )
        assert {"MessageGroupId": "g", "ApproximateReceiveCount": "1"}.items() <= record["attributes"].items()
        assert record["messageAttributes"]["Title"] == {
            "stringValue": "x", "stringListValues": [], "binaryListValues": [], "dataType": "String",
        }  # fmt: skip
        assert record["messageAttributes"]["Raw"]["binaryValue"] == "/w=="
        assert record["md5OfBody"] == "5d41402abc4b2a76b9719d911017c592"

    run(lambda clock: Embedded(clock, is_fifo=True), story)

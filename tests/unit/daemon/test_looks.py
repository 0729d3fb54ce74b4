"""A look at a source before a mapping of it is made: what is refused, and what is left to the mapping's state."""

import asyncio

import pytest

from bridge.core.connection import KafkaConnection
from bridge.core.egress import Egress, parse_allowed
from bridge.core.errors import ConfigError, SourceError, SourceMissing
from bridge.core.mapping import EventSourceMapping
from bridge.core.queues import QueueFacts
from bridge.daemon import looks
from bridge.daemon.streams import Streams as DaemonStreams
from bridge.testing.clock import ManualClock

MAPPING = EventSourceMapping(name="m", source="arn:aws:sqs:us-east-1:000000000000:q", function="f")
GONE = (
    "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. "
    "SQS Error Message: The specified queue does not exist."
)


class Queue:
    def __init__(self, error=None, *, waits=False):
        self.error, self.waits, self.closed = error, waits, 0

    def consumer(self):
        return self

    async def open(self):
        if self.waits:
            await asyncio.Event().wait()
        if self.error:
            raise self.error
        return QueueFacts(visibility_s=7.0, is_fifo=False, arn=MAPPING.source)

    async def close(self):
        self.closed += 1


class Streams:
    def __init__(self, queue, mistake=""):
        self._queue, self._mistake = queue, mistake

    def check(self, mapping):
        if self._mistake:
            raise ConfigError(self._mistake)

    async def check_hosts(self, mapping):
        pass

    def queue(self, mapping):
        return self._queue


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (SourceMissing(f"{GONE} (q)", told=GONE), GONE),
        (SourceMissing("Stream not found: arn"), "Stream not found: arn"),
        (SourceError(f"{GONE} (q)"), ""),
        (SourceError("SQS queue q: Connection refused"), ""),
    ],
)
async def test_what_is_not_there_is_a_problem_and_what_does_not_answer_is_none(error, problem):
    queue = Queue(error)
    look = await looks.look(Streams(queue), MAPPING)
    assert (look.problem, look.visibility_s, queue.closed) == (problem, None, 1)


async def test_a_queue_tells_how_long_it_hides():
    assert (await looks.look(Streams(Queue()), MAPPING)).visibility_s == 7.0


async def test_nobody_waits_for_ever(monkeypatch):
    monkeypatch.setattr(looks, "LOOK_MAX_S", 0.01)
    queue = Queue(waits=True)
    assert await looks.look(Streams(queue), MAPPING) == looks.SourceLook()
    assert queue.closed == 1


async def test_a_place_that_two_connections_reach_is_refused():
    look = await looks.look(Streams(Queue(), mistake="could be reached by a, b"), MAPPING)
    assert look.problem == "could be reached by a, b"


async def test_brokers_that_a_caller_names_must_be_allowed():
    streams = DaemonStreams(
        None, spill=None, clock=ManualClock(), region="us-east-1", account="0" * 12, outbox=lambda _place: None
    )
    mapping = EventSourceMapping(name="m", source="kafka://127.0.0.1:9092,127.0.0.2:9092/orders", function="f")
    assert (await looks.look(streams, mapping)).problem == (
        "127.0.0.1:9092 is not allowed for callers of the API: the daemon's file needs "
        '[egress] allow = ["127.0.0.1:9092"], or a [connections.X] with these bootstrap_servers'
    )
    denied = streams.reached_by(mapping)
    streams.configure({}, kinds={}, egress=Egress((parse_allowed("127.0.0.1"),)))
    assert "127.0.0.2:9092 is not allowed" in (await looks.look(streams, mapping)).problem, "each of them"
    streams.configure({}, kinds={}, egress=Egress((parse_allowed("127.0.0.0/8"),)))
    assert (await looks.look(streams, mapping)).problem == ""
    assert streams.reached_by(mapping) != denied, "it is started anew"

    of_file = KafkaConnection(name="", bootstrap_servers=("127.0.0.1:9092", "127.0.0.2:9092"))
    streams.configure({"127.0.0.1:9092,127.0.0.2:9092": of_file}, kinds={})
    assert (await looks.look(streams, mapping)).problem == "", "the file's own are not bound"

"""An embedded queue that cannot be fed any more says so: it must not look as if nothing had come."""

import pytest

from bridge.core.mapping import EventSourceMapping
from bridge.core.stream import BEFORE_ALL, Mark
from bridge.events.sqs import SqsShape
from bridge.sources.pull.local_queue import LocalQueue
from bridge.testing.clock import ManualClock


class Stream:
    """`sources.EventSource` and its own reader: it fails as it is told."""

    shape = SqsShape("arn:aws:sqs:us-east-1:000000000000:q")

    def __init__(self, error):
        self.error = error

    def consumer(self):
        return self

    async def open(self, events):
        await events.assigned({"s": Mark(position=BEFORE_ALL)})

    def behind(self, marks):
        return dict.fromkeys(marks)

    async def read(self, **_):
        raise self.error

    async def commit(self, marks): ...

    async def close(self): ...


async def test_what_ended_its_feeding_is_raised_by_the_next_receive():
    mapping = EventSourceMapping(name="m", source="local://q?as=sqs", function="f")
    queue = LocalQueue(mapping, Stream(RuntimeError("a bug")), spill=None, clock=ManualClock()).consumer()
    await queue.open()

    with pytest.raises(RuntimeError, match="a bug"):
        await queue.receive(records_max=10, wait_s=20, hidden_s=30)
    await queue.close()

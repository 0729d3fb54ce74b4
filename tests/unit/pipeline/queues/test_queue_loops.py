"""Functions that call themselves through a queue: the chain of its messages, where it ends, and what is kept then."""

import orjson
import pytest

from bridge.core import limits
from bridge.core.errors import StoreError
from bridge.core.function import function_arn
from bridge.core.invocation import Condition
from bridge.registry.recursion import ALLOW, Recursion
from bridge.testing.store import MemoryDeadLetters, MemoryParked
from tests.documents import MemoryDocuments
from tests.unit.pipeline.queues.world import World, virtually


class Letters:
    """The local dead letters; `fails` of its first writes do not."""

    def __init__(self, fails=0):
        self.store, self.fails = MemoryDeadLetters(MemoryParked()), fails
        self.sent = []

    async def send(self, letter):
        if self.fails:
            self.fails -= 1
            raise StoreError("full")
        self.sent.append(letter)


class Loop(World):
    """A function that sends each message on to its own queue, as SQS keeps it: with its trace header."""

    def __init__(self, clock, *, fails=0, **more):
        self.recursion = Recursion(MemoryDocuments(), arn_of=function_arn)
        self.letters = Letters(fails)
        super().__init__(clock, work={"loops": self.recursion, "spill": self.letters}, **more)
        self.function.trace = lambda request_id, name: self.recursion.trace(request_id, name, now=0.0)
        self.function.script = self.again
        self.rounds_max = 10_000

    def again(self, call):
        for value in call.values:
            if value != "end" and len(self.function.calls) < self.rounds_max:
                self.queue.put(value, trace_header=call.trace)


def test_a_loop_ends_as_a_local_dead_letter_where_the_queue_has_none():
    async def story(clock):
        async with Loop(clock, fails=2) as world:
            world.queue.put("round and round")
            await world.until(lambda: not world.queue.stored)

            assert len(world.function.calls) == limits.RECURSION_MAX
            (letter,) = world.letters.sent
            assert (letter.condition, letter.mapping, letter.function) == (Condition.RECURSIVE_LOOP, "m", "f")
            assert orjson.loads(letter.payload)["Records"][0]["body"] == "round and round"
            assert (letter.error_type, letter.attempts) == ("RecursiveInvocationException", 0)
            assert "f was invoked 16 times" in world.worker.queue().failure
            assert world.recursion._chains == {}, "nothing is kept of what has ended"

    virtually(story)


def test_a_loop_ends_in_the_queues_own_dead_letter_queue():
    async def story(clock):
        async with Loop(clock, queue={"max_receive_count": 2}) as world:
            world.queue.put("round and round")
            await world.until(lambda: bool(world.queue.dead))

            assert len(world.function.calls) == limits.RECURSION_MAX
            assert [stored.value for stored in world.queue.dead] == ["round and round"]
            assert world.letters.sent == []

    virtually(story)


@pytest.mark.parametrize("receives", [None, 2])
def test_the_others_of_its_queue_go_on_and_groups_keep_their_order(receives):
    async def story(clock):
        async with Loop(clock, queue={"is_fifo": True, "max_receive_count": receives}) as world:
            world.function.script = lambda _call: None
            stopped = f"Lineage={world.recursion.trace('0-0', 'f', now=0.0).partition('Lineage=')[2][:8]}:16"
            world.queue.put("a", "b", group="g")
            world.queue.put("loop", group="g", trace_header=stopped)
            world.queue.put("c", group="g")
            world.queue.put("d", group="h")
            await world.until(lambda: not world.queue.stored)

            handled = [value for batch in world.function.batches for value in batch]
            assert sorted(handled) == ["a", "b", "c", "d"]
            assert [value for value in handled if value != "d"] == ["a", "b", "c"]
            assert len(world.letters.sent) == (receives is None)
            assert len(world.queue.dead) == (receives is not None)

    virtually(story)


def test_a_loop_that_is_allowed_goes_on():
    async def story(clock):
        async with Loop(clock) as world:
            await world.recursion.set_mode("f", ALLOW)
            world.rounds_max = 40
            world.queue.put("round and round")
            await world.until(lambda: len(world.function.calls) >= 40)
            await world.empty()

            assert world.letters.sent == []

    virtually(story)

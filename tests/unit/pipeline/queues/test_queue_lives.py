"""Random lives of one mapping of a queue: faults, crashes, pauses; a ledger says what must hold (seeded, virtual time).

1. nothing is lost: what was sent is handled, filtered out, or still in the queue
2. nothing is deleted before its handler said yes, or its filter no, and the archive has it
3. per group of a FIFO queue, first successes come in the order of sending
4. no message runs twice at once
"""

import random
from typing import Any

from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from bridge.core.errors import SourceError, StoreError, Throttled
from bridge.core.invocation import THROTTLE_RESERVED
from tests.unit.pipeline.queues.world import REPORTS, Boom, Call, World, virtually


class Life:
    """One seeded life."""

    def __init__(self, clock: Any, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.clock = clock
        self.is_fifo = rng.random() < 0.5
        self.reports = rng.random() < 0.5
        batch_size = rng.choice((1, 2, 10)) if self.is_fifo else rng.choice((1, 3, 10, 40))
        self.filters = rng.random() < 0.3
        self.world = World(
            clock,
            queue={"is_fifo": self.is_fifo, "visibility_s": rng.choice((5.0, 30.0))},
            work={"keeps": self.keeps if self.filters else None, "archive": self.archive},
            batch_size=batch_size,
            maximum_batching_window_s=rng.choice((1.0, 5.0)) if batch_size > 10 else 0.0,
            maximum_concurrency=rng.choice((None, 2, 5)),
            function_response_types=REPORTS if self.reports else (),
        )
        self.world.function.slots = rng.choice((1, 3, 20))
        self.world.function.script = self.script
        self.world.function.duration_s = self.duration_s
        self.world.queue.fail = self.fail
        self.world.queue.delay_s = lambda _call: self.rng.choice((0.0, 0.0, 0.01, 0.3))
        self.fault_rate = rng.choice((0.0, 0.1, 0.4))
        self.failure_rate = rng.choice((0.0, 0.2, 0.5))
        self.is_calm = False
        self.running: set[str] = set()
        self.handled: dict[str, None] = {}
        self.archived: set[str] = set()
        self.group_of: dict[str, str] = {}
        self.sent: list[str] = []
        self.deleted_before = 0

    def keeps(self, message: Any) -> bool:
        return bool(int(message.body) % 3)

    async def archive(self, messages: Any) -> None:
        await self.clock.sleep(0.001)
        if not self.is_calm and self.rng.random() < self.fault_rate / 2:
            raise StoreError("full")
        self.archived.update(message.id for message in messages)

    def fail(self, call: str) -> None:
        self.check_deleted()
        if not self.is_calm and self.rng.random() < self.fault_rate:
            raise SourceError(f"{call} failed")

    def duration_s(self, call: Call) -> float:
        assert not self.running & set(call.ids), "a message runs twice at once"
        self.running |= set(call.ids)
        return self.rng.choice((0.0, 0.01, 1.0, 20.0))

    def script(self, call: Call) -> Any:
        self.running -= set(call.ids)
        if not self.is_calm and self.rng.random() < self.failure_rate:
            kind = self.rng.random()
            if kind < 0.3:
                raise Throttled(THROTTLE_RESERVED)
            if kind < 0.6 or not self.reports:
                raise Boom("no")
            at = self.rng.randrange(len(call.ids))
            failed = [i for n, i in enumerate(call.ids) if n >= at and (self.is_fifo or n == at)]
            self.handled.update(dict.fromkeys(i for i in call.ids if i not in failed))
            return {"batchItemFailures": [{"itemIdentifier": i} for i in failed]}
        self.handled.update(dict.fromkeys(call.ids))
        return None

    def check_deleted(self) -> None:
        queue = self.world.queue
        for each in queue.deleted[self.deleted_before :]:
            assert each in self.archived, "deleted before it was archived"
            if not (self.filters and self.number(each) % 3 == 0):
                assert each in self.handled, "deleted before it was handled"
        self.deleted_before = len(queue.deleted)

    def number(self, message_id: str) -> int:
        return int(message_id[1:])

    async def live(self) -> None:
        rng, world = self.rng, self.world
        world.start()
        for _ in range(rng.randrange(3, 9)):
            for _ in range(rng.randrange(12)):
                group = rng.choice("abc") if self.is_fifo else ""
                number = len(self.sent) + 1
                (sent,) = world.queue.put(number, group=group)
                self.sent.append(sent)
                self.group_of[sent] = group
            await self.clock.sleep(rng.choice((0.0, 0.1, 3.0, 40.0)))
            chance = rng.random()
            if chance < 0.15:
                await world.crash()
                self.running.clear()
            elif chance < 0.3:
                await world.worker.drain(deadline_s=rng.choice((0.0, 100.0)))
                await world.crash()
                self.running.clear()
        self.is_calm = True
        await world.empty(within_s=6 * 3600)
        self.check_deleted()
        assert set(self.sent) == set(world.queue.deleted)
        if self.is_fifo:
            for group in "abc":
                order = [self.number(i) for i in self.handled if self.group_of[i] == group]
                assert order == sorted(order), f"group {group} out of order: {order}"
        await world.worker.drain(deadline_s=1.0)
        await world.cut()


@given(st.integers(0, 10**9))
@example(1)
@settings(max_examples=60, deadline=None, phases=(Phase.explicit, Phase.generate))  # a seed does not shrink
def test_a_random_life_keeps_every_promise(seed):
    virtually(lambda clock: Life(clock, seed).live())

"""A sharded stream under everything at once: reshards, crashes, drains, faults; nothing is lost, order is kept by key."""

import random
from typing import Any

import pytest

from bridge.core.mapping import StartingPosition
from tests.unit.pipeline.streams.world import Boom
from tests.unit.sources.pull.shards_world import ShardsWorld, records

KEYS = [f"key-{number}" for number in range(6)]
CODES = (
    "ExpiredIteratorException", "ProvisionedThroughputExceededException", "LimitExceededException", "InternalFailure",
    "ExpiredTokenException",
)  # fmt: skip


class Simulation:
    """One run; `owners` says which open shard takes a key."""

    def __init__(self, seed: int, *, kind: str, factor: int) -> None:
        self.rng = random.Random(seed)
        self.world = ShardsWorld(
            kind=kind, shards=2, per_page=3, batch_size=5, parallelization_factor=factor,
            starting_position=StartingPosition.TRIM_HORIZON,
        )  # fmt: skip
        names = list(self.world.service.shards)
        self.owners = {key: names[number % 2] for number, key in enumerate(KEYS)}
        self.sent: dict[str, list[int]] = {key: [] for key in KEYS}
        self.count = 0
        self.fault_rate = 0.0
        self.world.service.fails = self.fails
        self.world.function.script = self.script
        self.succeeded: list[Any] = []
        """Calls that did, in order."""

    def fails(self, _operation: str, _arguments: Any) -> str | None:
        return self.rng.choice(CODES) if self.rng.random() < self.fault_rate else None

    def script(self, call: Any, _number: int) -> None:
        if self.rng.random() < self.fault_rate:
            raise Boom("by chance")
        self.succeeded.append(call)

    def put(self) -> None:
        for _ in range(self.rng.randint(1, 12)):
            key = self.rng.choice(KEYS)
            self.count += 1
            self.world.service.put(self.owners[key], [b"%d" % self.count], key=key)
            self.sent[key].append(self.count)

    def reshard(self) -> None:
        service = self.world.service
        is_open = [name for name, shard in service.shards.items() if shard.last is None]
        if self.world.kind == "kinesis" and self.rng.random() < 0.5 and len(is_open) > 1:  # DynamoDB never merges
            one, other = self.rng.sample(is_open, 2)
            moved = {one: [service.merge(one, other)]}
            moved[other] = moved[one]
        else:
            parent = self.rng.choice(is_open)
            moved = {parent: service.split(parent)}
        for number, key in enumerate(KEYS):
            if children := moved.get(self.owners[key]):
                self.owners[key] = children[number % len(children)]

    async def run(self) -> None:
        world, rng = self.world, self.rng
        await world.start()
        for _ in range(40):
            step = rng.random()
            if step < 0.35:
                self.put()
            elif step < 0.5:
                self.reshard()
            elif step < 0.6:
                await world.crash()
                if rng.random() < 0.5:
                    self.put()
                    self.reshard()
                await world.start()
            elif step < 0.65:
                await world.stop()
                await world.start()
            elif step < 0.75:
                self.fault_rate = rng.choice((0.0, 0.05, 0.3))
                world.function.duration_s = rng.choice((0.0, 0.3, 4.0))
            else:
                await world.advance(rng.choice((0.25, 1.0, 5.0, 40.0)), step_s=0.25)
        self.fault_rate, world.function.duration_s = 0.0, 0.0
        await world.advance(240, step_s=1.0)
        await world.stop()

    def check(self) -> None:
        seen: dict[str, list[int]] = {key: [] for key in KEYS}
        for call in self.succeeded:
            for key, value in records(call):
                if value not in seen[key]:
                    seen[key].append(value)
        assert seen == self.sent
        assert not self.world.letters.letters


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kinesis", "dynamodb"])
@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize("seed", range(4))
async def test_nothing_is_lost_and_order_is_kept_by_key(seed: int, factor: int, kind: str) -> None:
    simulation = Simulation(seed, kind=kind, factor=factor)

    await simulation.run()

    simulation.check()

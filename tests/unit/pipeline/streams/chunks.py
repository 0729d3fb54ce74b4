"""Chunks, lanes and batches for tests of the pure parts, and strategies that draw them."""

import random
from collections.abc import Sequence

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from bridge.core.invocation import InvocationResult, ResultKind
from bridge.core.stream import BEFORE_ALL, Chunk, Mark, Position
from bridge.pipeline.streams.batch import Batch, Part, compact
from bridge.pipeline.streams.lane import Lane, ShardWork
from bridge.pipeline.streams.track import ChunkTrack, Piece

pure = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""
FAILED = InvocationResult(kind=ResultKind.FUNCTION_ERROR, payload=b"{}", version="1")
OK = InvocationResult(kind=ResultKind.OK, payload=b"null", version="1")


def chunk(
    positions: Sequence[Position],
    *,
    shard: str = "s-0",
    through: Position | None = None,
    time_ms: int = 0,
    size: int = 2,
) -> Chunk:
    return Chunk(
        shard=shard,
        positions=list(positions),
        times_ms=[time_ms] * len(positions),
        keys=[None] * len(positions),
        values=[b"{}"] * len(positions),
        fragments=[b"x" * size] * len(positions),
        through=positions[-1] if through is None else through,
    )


def lane(*, shard: str = "s-0", mark: Mark | None = None) -> Lane:
    return ShardWork(shard, mark or Mark(position=BEFORE_ALL), lanes=1, window_s=0, now=0.0).lanes[0]


def places(piece: Piece) -> list[Position]:
    return [piece.track.chunk.positions[index] for index in piece.indexes]


def positions_of(batch: Batch) -> list[tuple[str, Position]]:
    return [
        (part.lane.shard.name, position) for part in batch.parts for piece in part.pieces for position in places(piece)
    ]


def _pieces(rng: random.Random, *, first: int, shard: str) -> list[Piece]:
    made = []
    at = first
    for _ in range(rng.randint(1, 4)):
        count = rng.randint(1, 8)
        columns = chunk(range(at, at + count), shard=shard)
        columns.times_ms = rng.choices((-1, 0, 10_000, 100_000), k=count)
        indexes = sorted(rng.sample(range(count), rng.randint(1, count)))
        made.append(Piece(ChunkTrack(columns), compact(indexes)))
        at += count + rng.randint(0, 3)
    return made


def _batch(rng: random.Random, *, lanes_max: int) -> Batch:
    names = [f"s-{number}" for number in range(rng.randint(1, lanes_max))]
    batch = Batch(parts=[Part(lane=lane(shard=name), pieces=_pieces(rng, first=0, shard=name)) for name in names])
    batch.tries.attempts = rng.randint(0, 3)
    batch.tries.setbacks = rng.randint(0, 20)
    return batch


# Drawn whole from one number: drawing every record would take longer than the tests.
seeds = st.integers(0, 1 << 32).map(random.Random)


def pieces() -> st.SearchStrategy[list[Piece]]:
    """Pieces of one lane, as parallel lanes and filters leave them: rising, with gaps."""
    return seeds.map(lambda rng: _pieces(rng, first=0, shard="s-0"))


def batches(*, lanes_max: int = 3) -> st.SearchStrategy[Batch]:
    """Batches of one lane or several, tried before or not."""
    return seeds.map(lambda rng: _batch(rng, lanes_max=lanes_max))


def rng() -> random.Random:
    return random.Random(1)

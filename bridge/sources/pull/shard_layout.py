"""What is kept beside the marks of a sharded stream: of which stream they are, and where shards without one begin."""

from dataclasses import dataclass
from typing import Self

import orjson

from bridge.core.mapping import StartingPosition
from bridge.sources.pull.shard_api import StreamFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What is kept beside the marks of a mapping: which stream they are of, and where shards without a record begin."""

    arn: str
    created: str
    position: StartingPosition
    """TRIM_HORIZON or AT_TIMESTAMP: the latest is the time at which it was asked for."""
    time: float | None = None
    """Epoch seconds; of AT_TIMESTAMP."""

    def __str__(self) -> str:
        return orjson.dumps(
            {"arn": self.arn, "created": self.created, "position": self.position.value, "time": self.time}
        ).decode()

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return what `str` made; None for anything else (the marks of another kind of source)."""
        try:
            stored = orjson.loads(text)
            return cls(
                arn=stored["arn"],
                created=stored["created"],
                position=StartingPosition(stored["position"]),
                time=stored["time"],
            )
        except (ValueError, TypeError, KeyError):
            return None

    def is_of(self, facts: StreamFacts) -> bool:
        """Whether these are the marks of that very stream."""
        return (self.arn, self.created) == (facts.arn, facts.created)

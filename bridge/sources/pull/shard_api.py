"""What the reader of a sharded stream asks of its service: calls of one attempt each, and the limits they keep."""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol

import orjson

from bridge.aws.errors import AwsTrouble, AwsTroubleKind, trouble
from bridge.aws.raw import take_raw
from bridge.core.errors import SourceError, SourceMissing
from bridge.core.ports import Clock
from bridge.core.sources import EventShape
from bridge.core.stream import Chunk, Position, Shard
from bridge.sources.pull.lineage import ListedShard

CALL_MAX_S: Final = 30.0
"""A call that takes longer is given up; reading is repeated."""
LISTING_PAGES_MAX: Final = 1000
"""Of shards: a million."""
_CLOCKS_APART_S: Final = 2.0
"""Our clock is believed unless the service's differs by more: that one has whole seconds only."""


class ShardCallFailed(Exception):
    """A call to the service failed: `trouble` says how."""

    def __init__(self, trouble: AwsTrouble, *, stream: str) -> None:
        super().__init__(trouble.message)
        self.trouble = trouble
        self.stream = stream

    @property
    def is_trimmed(self) -> bool:
        """Whether retention took what was asked for (DynamoDB; Kinesis goes on with what is left)."""
        return self.trouble.code == "TrimmedDataAccessException"

    def as_source_error(self) -> SourceError:
        """Return it in the engine's words."""
        if self.trouble.kind is AwsTroubleKind.NOT_FOUND:
            return SourceMissing(f"Stream not found: {self.stream}")
        return SourceError(f"{self.stream}: {self.trouble.message}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLimits:
    """How often, and how much at once, one shard is read."""

    records_max: int
    """Of one call."""
    call_s: float
    """At least so long between two calls while there is more."""
    idle_s: float
    """…and while there is nothing more."""
    bytes_per_s: float
    """0: no limit."""
    iterator_max_s: float
    """An iterator older than this is asked for anew, before it expires."""

    def wait_s(self, *, size: int, is_behind: bool) -> float:
        """Return how long to wait after a call that brought `size` bytes."""
        wait_s = self.call_s if is_behind else self.idle_s
        return max(wait_s, size / self.bytes_per_s) if self.bytes_per_s else wait_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where an iterator begins: exactly one of them."""

    at: Position | None = None
    """At the record with this sequence number."""
    after: Position | None = None
    """Behind the record with this sequence number."""
    time: float | None = None
    """At the first record at or after, epoch seconds."""
    is_latest: bool = False
    """Behind the last record. None of all: at the oldest record."""


OLDEST: Final = Start()


@dataclass(slots=True, kw_only=True, eq=False)
class Page:
    """What one GetRecords brought."""

    records: list[dict[str, Any]]
    """As the API's JSON has them, data still as base64."""
    iterator: str | None
    """Of the next page; None: the shard is closed and this was the last."""
    behind_s: float | None
    """How far behind the tip it is; None where the service does not say."""
    size: int
    """Bytes of the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFacts:
    """A stream as its service describes it."""

    arn: str
    created: str
    """When it was made: a stream of the same name that was made anew is another one."""


class ShardApi(Protocol):
    """The calls for one stream. Each raises ShardCallFailed; each is one attempt, CALL_MAX_S at most."""

    has_times: bool
    """Whether an iterator may begin at a time; else records are read from the oldest on and passed over."""

    @property
    def shape(self) -> EventShape:
        """How its records become events; it hears the stream's ARN from `describe`."""
        ...

    @property
    def limits(self) -> ReadLimits:
        """How often and how much at once is read."""
        ...

    @property
    def title(self) -> str:
        """What the stream is called in logs and errors."""
        ...

    async def describe(self, known: str = "") -> StreamFacts:
        """Return what stream it is; called first.

        `known` is the ARN of the one that was read so far: where a name has had several streams (a table's), that one
        is stayed with while the service has it.
        """
        ...

    async def shards(self) -> Mapping[Shard, ListedShard]:
        """Return all shards that the stream lists, closed ones too."""
        ...

    async def iterator(self, shard: Shard, start: Start) -> str:
        """Return an iterator."""
        ...

    async def page(self, iterator: str, *, records_max: int) -> Page:
        """Return what lies behind an iterator."""
        ...

    def now(self) -> float:
        """Return the service's time as far as it is known, epoch seconds."""
        ...

    # --- records, as in pages; no I/O ---------------------------------------------------------

    def position(self, record: Mapping[str, Any]) -> Position:
        """Return the sequence number."""
        ...

    def time_ms(self, record: Mapping[str, Any]) -> int:
        """Return the arrival, epoch milliseconds; -1 where it is not known."""
        ...

    def size(self, record: Mapping[str, Any]) -> int:
        """Return about how many bytes it holds."""
        ...

    def chunk(self, shard: Shard, records: Sequence[dict[str, Any]], *, through: Position) -> Chunk:
        """Return them as columns."""
        ...


def parsed_page(body: bytes, *, stream: str) -> Mapping[str, Any]:
    """Return GetRecords' answer; what is none (a proxy's page) is the service's trouble. Raises ShardCallFailed."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("Records"), list):
        text = f"GetRecords: 200 without records: {body[:100].decode('utf-8', 'replace')!r}"
        raise ShardCallFailed(AwsTrouble(kind=AwsTroubleKind.SERVICE, code="NoRecords", message=text), stream=stream)
    return found


class SequenceNumbers:
    """Writes sequence numbers as the service does.

    Some stand-ins begin them with zeros and compare them as texts: one that is written without them is behind all.

    Args:
        digits: at least so many has each.
    """

    def __init__(self, *, digits: int = 0) -> None:
        self._digits = digits

    def seen(self, numbers: Iterable[str | None]) -> None:
        """Look at how the service writes them. AWS's own differ in length, and have no zeros before them."""
        self._digits = max(self._digits, *(len(number) for number in numbers if number and number[0] == "0"), 0)

    def text(self, position: Position) -> str:
        """Return a position as the service writes it."""
        return str(position).zfill(self._digits)


class ServiceClock:
    """Tells the service's time by the dates of its answers, where ours is far from it."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def answered(self, answer: Mapping[str, Any], *, now: float) -> None:
        """Look at the date of an answer (`now`: our wall clock)."""
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        try:
            date = parsedate_to_datetime(headers["date"])
        except (KeyError, TypeError, ValueError):
            return
        ahead_s = date.replace(tzinfo=date.tzinfo or dt.UTC).timestamp() - now
        self._ahead_s = ahead_s if abs(ahead_s) > _CLOCKS_APART_S else 0.0

    def at(self, now: float) -> float:
        """Return the service's time at our time `now`."""
        return now + self._ahead_s


MakeClient = Callable[[], Awaitable[Any]]
"""Returns aiobotocore's client, the same each time."""


class ShardCalls:
    """Calls one service through aiobotocore's client, and hears its time.

    Args:
        make_client: returns the client.
        clock: our time.
    """

    def __init__(self, make_client: MakeClient, *, clock: Clock) -> None:
        self._make_client = make_client
        self._clock = clock
        self._service_clock = ServiceClock()

    async def __call__(self, operation: str, *, stream: str, **arguments: Any) -> Mapping[str, Any]:
        """Return the answer of one attempt; that of `get_records` unparsed. Raises ShardCallFailed, naming `stream`."""
        try:
            async with asyncio.timeout(CALL_MAX_S):
                client = await self._make_client()
                take_raw(client, "GetRecords")
                answer: Mapping[str, Any] = await getattr(client, operation)(**arguments)
        except Exception as error:  # whatever a client raises is told by kind
            raise ShardCallFailed(trouble(error), stream=stream) from error
        self._service_clock.answered(answer, now=self._clock.time())
        return answer

    def now(self) -> float:
        """Return the service's time as far as it is known, epoch seconds."""
        return self._service_clock.at(self._clock.time())

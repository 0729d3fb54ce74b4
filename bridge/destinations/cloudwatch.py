"""Log events of functions on their way to CloudWatch Logs: in batches that PutLogEvents takes, retried, bounded."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import structlog

from bridge.aws.errors import AwsTrouble, AwsTroubleKind, call_errors, trouble
from bridge.core import limits
from bridge.core.errors import ConfigError
from bridge.core.ports import Clock
from bridge.util import telemetry
from bridge.util.text import JOINED_LINES

log = structlog.get_logger("bridge.cloudwatch")

# docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
BATCH_MAX_BYTES: Final = 1_048_576
BATCH_MAX_EVENTS: Final = 10_000
BATCH_MAX_MS: Final = 24 * 3_600_000
EVENT_OVERHEAD_BYTES: Final = 26
EVENT_MAX_BYTES: Final = 256 * limits.KIB - EVENT_OVERHEAD_BYTES
"""A longer line is cut: 1 MiB on AWS since April 2025, this before and elsewhere."""
GATHER_S: Final = 1.0
"""What comes in this time goes together; so soon a group in trouble is looked at again."""
CALL_MAX_S: Final = 20.0
CLOSE_MAX_S: Final = 5.0
ROUND_BATCHES_MAX: Final = 4
"""Batches of one stream before the others have their turn."""
STREAMS_KNOWN_MAX: Final = 10_000
TOLD_S: Final = 60.0
"""What is dropped is told in the log so often."""
_PART_OVERHEAD_BYTES: Final = 64
_CUT_SPARE_BYTES: Final = 16
_BUSY: Final = "OperationAbortedException"
"""Somebody else is making the group."""


class Writer(NamedTuple):
    """As whom lines are sent."""

    role: str = ""
    """ARN of an execution role; empty: as the connection."""
    session: str = ""
    """With it: the function's name."""


class _Place(NamedTuple):
    """A log group, and who writes there: what one may not, another may."""

    group: str
    writer: Writer


CONNECTION: Final = Writer()
_Key = tuple[_Place, str]
"""Where, and which stream."""


class _Stream:
    """What waits for one log stream: parts as they were written, then the events of the next batch."""

    def __init__(self) -> None:
        self.parts: deque[tuple[float, bytes]] = deque()
        self.events: list[tuple[int, str, int]] = []
        """Milliseconds, message, bytes as PutLogEvents counts them."""
        self.size = 0
        self._last_ms = 0

    def add(self, at: float, data: bytes) -> None:
        self.parts.append((at, data))
        self.size += len(data) + _PART_OVERHEAD_BYTES

    def batch(self) -> list[tuple[int, str, int]]:
        """Return the first events that one call takes; they stay until `forget`."""
        found: list[tuple[int, str, int]] = []
        size = 0
        while len(found) < BATCH_MAX_EVENTS:
            if len(found) == len(self.events) and not self._split():
                break
            event = self.events[len(found)]
            size += event[2]
            if size > BATCH_MAX_BYTES or event[0] - self.events[0][0] >= BATCH_MAX_MS:
                break
            found.append(event)
        return found

    def forget(self, count: int) -> None:
        self.size -= sum(event[2] for event in self.events[:count])
        del self.events[:count]

    def count(self) -> int:
        """Return how many events wait."""
        return len(self.events) + sum(data.count(b"\n") or 1 for _, data in self.parts)

    def _split(self) -> bool:
        while self.parts:
            at, data = self.parts.popleft()
            self.size -= len(data) + _PART_OVERHEAD_BYTES
            self._last_ms = max(int(at * 1000), self._last_ms)  # a batch goes up in time
            before = len(self.events)
            for message, size in _messages(data):
                self.events.append((self._last_ms, message, size))
                self.size += size
            if len(self.events) > before:
                return True
        return False


def _messages(data: bytes) -> Iterator[tuple[str, int]]:
    """Yield the message of each line, its newline included as Lambda sends it, and what it counts for."""
    for line in data.removesuffix(b"\n").split(b"\n"):
        text = line.decode(errors="backslashreplace") + "\n"
        if JOINED_LINES.match(text):
            text = text.replace("\r", "\n")  # one record of AWS's runtime, whose lines a terminal would overwrite
        encoded = text.encode()
        if len(encoded) <= EVENT_MAX_BYTES:
            yield text, len(encoded) + EVENT_OVERHEAD_BYTES
            continue
        step = EVENT_MAX_BYTES - _CUT_SPARE_BYTES  # a character that is cut in two becomes longer
        for start in range(0, len(encoded), step):
            piece = encoded[start : start + step].decode(errors="replace")
            yield piece, len(piece.encode()) + EVENT_OVERHEAD_BYTES


class _Group:
    """How a log group fares."""

    def __init__(self) -> None:
        self.size = 0
        self.retry_at = 0.0
        """Monotonic: before it nothing is sent."""
        self.backoff_s = 0.0
        self.failing_since: float | None = None
        self.error = ""


class CloudWatchLogs:
    """What is behind `runtime.logs.LogSink`: takes lines at once, and sends them when it can.

    Delivery is at least once: a call whose answer is lost is made again. A group or stream that is missing is made.
    A service that throttles, fails or refuses the credentials is asked again after 1 to 60 s, for ever; meanwhile
    lines wait in memory, `limits.CLOUDWATCH_BUFFER_MAX_BYTES` at most, a quarter of it a group: further ones are
    dropped, counted, and told in the log.

    Args:
        client: returns the service's client of a writer; may raise ConfigError.
        clock: waits and back-off.
    """

    def __init__(self, *, client: Callable[[Writer], Awaitable[Any]], clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._streams: dict[_Key, _Stream] = {}
        self._groups: dict[_Place, _Group] = {}
        self._known: dict[_Key, None] = {}
        """Streams that are there, the longest known first."""
        self._size = 0
        self._wake = asyncio.Event()
        self._dropped = 0
        """Not told yet."""
        self._told_at: float | None = None
        self._round: asyncio.Task[None] | None = None
        """What is being sent: a stop lets it end, so that nothing is there twice without need."""

    @property
    def waiting(self) -> int:
        """Bytes that wait."""
        return self._size

    def _grow(self, group: _Group, added: int) -> None:
        group.size += added
        self._size += added

    def put(
        self, group: str, stream: str, written: Sequence[tuple[float, bytes]], *, writer: Writer = CONNECTION
    ) -> None:
        """Take whole lines; never raises, never waits."""
        place = _Place(group, writer)
        state = self._groups.setdefault(place, _Group())
        entry = self._streams.setdefault((place, stream), _Stream())
        room = min(limits.CLOUDWATCH_BUFFER_MAX_BYTES - self._size, limits.CLOUDWATCH_GROUP_MAX_BYTES - state.size)
        dropped, before = 0, entry.size
        for at, data in written:
            if len(data) + _PART_OVERHEAD_BYTES > room - (entry.size - before):
                dropped += data.count(b"\n") or 1
            else:
                entry.add(at, data)
        self._grow(state, entry.size - before)
        if not entry.size:
            del self._streams[place, stream]
        if dropped:
            self._drop(dropped, "full")
        self._wake.set()

    def _drop(self, count: int, reason: str) -> None:
        telemetry.CLOUDWATCH_EVENTS.labels(outcome=reason).inc(count)
        self._dropped += count
        now = self._clock.monotonic()
        if self._told_at is None or now - self._told_at >= TOLD_S:
            self._tell(now)

    def _tell(self, now: float) -> None:
        """Say how many events were dropped since it was last said."""
        log.warning("log_events_dropped", events=self._dropped, reason=self._reason())
        self._dropped, self._told_at = 0, now

    def _reason(self) -> str:
        return next((group.error for group in self._groups.values() if group.error), "the buffer is full")

    # --- sending ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send for ever; for the supervisor."""
        while True:
            if not self._streams:
                self._wake.clear()
                await self._wake.wait()
            await self._clock.sleep(GATHER_S)
            self._round = asyncio.create_task(self._send_due(), name="cloudwatch-round")
            await asyncio.shield(self._round)
            now = self._clock.monotonic()
            for place in [
                place for place, group in self._groups.items() if not group.size and group.failing_since is None
            ]:
                del self._groups[place]
            if self._dropped and self._told_at is not None and now - self._told_at >= TOLD_S:
                self._tell(now)

    async def _send_due(self) -> None:
        due = deque(key for key in self._streams if self._is_due(key[0]))

        async def serve() -> None:
            while due:
                key = due.popleft()
                if self._is_due(key[0]):  # another stream of its group may have met with trouble
                    await self._send(key)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(limits.CLOUDWATCH_SENDS_MAX, len(due))):
                group.create_task(serve())

    def _is_due(self, place: _Place) -> bool:
        return self._groups[place].retry_at <= self._clock.monotonic()

    async def _send(self, key: _Key) -> None:
        entry, group = self._streams[key], self._groups[key[0]]
        for _ in range(ROUND_BATCHES_MAX):
            before = entry.size
            batch = entry.batch()
            self._grow(group, entry.size - before)
            refused = await self._try(key, batch)
            if refused is None:
                if self._is_due(key[0]):
                    continue
                return
            before = entry.size
            entry.forget(len(batch))
            self._grow(group, entry.size - before)
            if refused:
                self._drop(refused, "refused")
            telemetry.CLOUDWATCH_EVENTS.labels(outcome="sent").inc(len(batch) - refused)
            if not entry.size:
                del self._streams[key]
                return

    async def _try(self, key: _Key, batch: list[tuple[int, str, int]]) -> int | None:
        """Send a batch; returns how many of its events were refused for good, None when it is to be sent again."""
        is_known, is_made = key in self._known, False
        try:
            async with asyncio.timeout(CALL_MAX_S):
                client = await self._client(key[0].writer)
                if not is_known:
                    await self._make(client, key)
                is_made = True
                answer = await client.put_log_events(
                    logGroupName=key[0].group,
                    logStreamName=key[1],
                    logEvents=[{"timestamp": at, "message": message} for at, message, _ in batch],
                )
        except ConfigError as error:
            self._failed(key[0], str(error), None)
            return None
        except call_errors() as error:  # TimeoutError, an OSError, among them
            found = trouble(error)
            if found.kind is AwsTroubleKind.NOT_FOUND:
                self._known.pop(key, None)
                if is_known:  # somebody deleted it: it is made anew, at once
                    return None
            if is_made and found.kind in (AwsTroubleKind.INVALID, AwsTroubleKind.TOO_LARGE) and found.code != _BUSY:
                log.warning("log_events_refused", group=key[0].group, stream=key[1], error=found.message)
                self._recovered(key[0])
                return len(batch)
            self._failed(key[0], found.message, found)
            return None
        self._recovered(key[0])
        return _rejected(answer.get("rejectedLogEventsInfo") or {}, len(batch))

    async def _make(self, client: Any, key: _Key) -> None:
        """Make a stream, and its group where that is missing; what is there already is fine."""
        group = key[0].group
        if not await _made(client.create_log_stream(logGroupName=group, logStreamName=key[1])):
            await _made(client.create_log_group(logGroupName=group))
            await client.create_log_stream(logGroupName=group, logStreamName=key[1])
        self._known[key] = None
        if len(self._known) > STREAMS_KNOWN_MAX:
            del self._known[next(iter(self._known))]

    def _failed(self, place: _Place, text: str, found: AwsTrouble | None) -> None:
        group, now = self._groups[place], self._clock.monotonic()
        least, most = limits.CLOUDWATCH_BACKOFF_MIN_S, limits.CLOUDWATCH_BACKOFF_MAX_S
        group.backoff_s = min(max(least, group.backoff_s * 2), most)
        if found is not None and found.retry_after_s is not None:
            group.backoff_s = min(max(group.backoff_s, found.retry_after_s), most)
        group.retry_at = now + group.backoff_s
        if group.failing_since is None:
            group.failing_since = now
            log.warning("log_events_not_sent", group=place.group, error=text, retry_s=group.backoff_s)
        group.error = text

    def _recovered(self, place: _Place) -> None:
        group = self._groups[place]
        if group.failing_since is not None:
            lasted_s = self._clock.monotonic() - group.failing_since
            log.info("log_events_sent_again", group=place.group, lasted_s=round(lasted_s, 1))
        group.failing_since, group.backoff_s, group.retry_at, group.error = None, 0.0, 0.0, ""

    # --- what is known, the end ---------------------------------------------------------------

    def troubles(self, *, after_s: float) -> list[str]:
        """Return a line for each log group that has taken nothing for longer than `after_s` seconds."""
        now = self._clock.monotonic()
        return [
            f"CloudWatch Logs takes nothing for {place.group} for {now - group.failing_since:.0f} s, "
            f"{group.size} bytes wait: {group.error}"
            for place, group in self._groups.items()
            if group.failing_since is not None and now - group.failing_since > after_s
        ]

    def fact(self) -> tuple[bool, str]:
        """Return whether all is well, and what is known."""
        failing = [
            f"{place.group}: {group.error}" for place, group in self._groups.items() if group.failing_since is not None
        ]
        return not failing, "; ".join([f"{self.waiting} bytes of log events wait", *failing])

    async def close(self, *, deadline_s: float) -> None:
        """Send what can be sent within `deadline_s` seconds, each group in trouble tried once; the rest is dropped."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline_s)):
                if self._round is not None:
                    await asyncio.wait({self._round})
                for group in self._groups.values():
                    group.retry_at = 0.0
                while any(self._is_due(place) for place, _ in self._streams):
                    await self._send_due()
        if self._round is not None:
            self._round.cancel()
            await asyncio.gather(self._round, return_exceptions=True)
        if left := sum(stream.count() for stream in self._streams.values()):
            self._told_at = None
            self._drop(left, "stopped")
        self._streams.clear()
        self._groups.clear()
        self._size = 0


async def _made(call: Awaitable[Any]) -> bool:
    """Await what makes a group or a stream; False: its group is missing. What is there already is fine."""
    try:
        await call
    except call_errors() as error:
        found = trouble(error)
        if found.kind is AwsTroubleKind.NOT_FOUND:
            return False
        if found.code != "ResourceAlreadyExistsException":
            raise
    return True


def _rejected(told: dict[str, Any], count: int) -> int:
    """Return how many events of a batch the service left out, by their times: expired, too old, too new."""
    gone = max(int(told.get("expiredLogEventEndIndex", 0)), int(told.get("tooOldLogEventEndIndex", 0)))
    new = int(told.get("tooNewLogEventStartIndex", count))
    return min(count, gone + count - new)

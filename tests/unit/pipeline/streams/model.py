"""What must hold in a mapping's life, said without the engine's own notions: records, lanes, marks, who may repeat."""

import zlib
from collections import Counter
from typing import Any

import orjson

from bridge.core.invocation import Condition, DeadLetter
from bridge.core.mapping import EventSourceMapping
from bridge.core.stream import Mark
from bridge.pipeline.streams import forming
from bridge.pipeline.streams.notes import Note
from bridge.testing.clock import ManualClock
from bridge.testing.source import ScriptedStream

Id = tuple[str, int]
"""Shard and position of a record."""

COMMIT_WITHIN_S = 0.45
"""What ended longer ago than this is committed, where nothing fails (COMMIT_S and one more round)."""


class Broken(AssertionError):
    """A rule does not hold."""


class Model:
    """What must hold, said without the engine's own notions."""

    def __init__(self, stream: ScriptedStream, clock: ManualClock, mapping: EventSourceMapping) -> None:
        self.stream = stream
        self.clock = clock
        self.mapping = mapping
        self.expected: dict[Id, int] = {}
        """Records that pass the filter, with the number of their lane."""
        self.lanes: dict[tuple[str, int], list[int]] = {}
        self.ended: Counter[Id] = Counter()
        """How often each was handled or dead-lettered."""
        self.ended_at: dict[Id, float] = {}
        self.allowed: Counter[Id] = Counter()
        """How often each may be."""
        self.started: set[Id] = set()
        self.running: dict[int, set[Id]] = {}
        self.sending: list[set[Id]] = []
        """Records of the dead letters that are on their way."""
        self.letter_at = 0.0
        self.unsent: set[Id] = set()
        """Records of those that were not taken at first."""
        self.is_calm = False
        """Whether nothing but the batching rules says when a batch begins."""
        self.idle_since: dict[tuple[str, int], float] = {}
        self.assigned_at: dict[str, float] = {}
        self.exposed = 0
        """Records that a fault made possible to be handled twice."""
        self.trace: list[Any] = []
        self.broken = ""

    def fail(self, text: str) -> None:
        """A rule does not hold: the first one counts, the engine may swallow it or stumble over it later."""
        self.broken = self.broken or f"{text} at {self.clock.monotonic():.3f}"
        raise Broken(self.broken)

    def put(self, shard: str, position: int, key: bytes | None) -> None:
        """A record that passes the filter was put."""
        count = self.mapping.parallelization_factor
        number = 0 if count == 1 else position % count if key is None else zlib.crc32(key) % count
        self.expected[shard, position] = number
        self.lanes.setdefault((shard, number), []).append(position)

    def lane(self, record: Id) -> tuple[str, int]:
        return record[0], self.expected[record]

    def start(self, number: int, records: list[Id], size: int) -> None:
        """An invocation begins."""
        mapping = self.mapping
        self.trace.append((round(self.clock.monotonic(), 6), "start", records))
        held = set(records)
        if len(held) != len(records):
            self.fail(f"a record twice in one batch: {records}")
        if unknown := held - self.expected.keys():
            self.fail(f"unexpected records {sorted(unknown)}")
        if len(records) > mapping.batch_size:
            self.fail(f"{len(records)} records in a batch")
        if size > forming.PAYLOAD_MAX_BYTES:
            self.fail(f"an event of {size} bytes")
        lanes = {self.lane(record) for record in records}
        for other in self.running.values():
            if lanes & {self.lane(record) for record in other}:
                self.fail(f"two invocations of one lane: {sorted(records)} beside {sorted(other)}")
        if mapping.maximum_concurrency is not None and len(self.running) >= mapping.maximum_concurrency:
            self.fail("more invocations than maximum_concurrency")
        for record in held - self.started:
            for position in self.lanes[self.lane(record)]:
                before = record[0], position
                if position < record[1] and not self.ended[before] and before not in held:
                    self.fail(f"{record} is begun before {before} has ended")
        if held and self.is_calm and mapping.maximum_batching_window_s and not held & self.started:
            (lane,) = lanes
            since = max(self.idle_since.get(lane, 0.0), self.assigned_at[lane[0]])
            early_s = since + mapping.maximum_batching_window_s - self.clock.monotonic()
            if len(held) < mapping.batch_size and early_s > 1e-6:
                self.fail(f"{records} are sent {early_s} s before the window ends")
        self.started |= held
        self.running[number] = held

    def stop(self, number: int, handled: list[Id], *, in_order: bool) -> None:
        """It has ended, and so many of its records are handled."""
        held = self.running.pop(number)
        self.idle_since |= dict.fromkeys(map(self.lane, held), self.clock.monotonic())
        self.trace.append((round(self.clock.monotonic(), 6), "handled", handled))
        done = set(handled)
        for record in handled if in_order else ():
            for position in self.lanes[self.lane(record)]:
                before = record[0], position
                if position < record[1] and not self.ended[before] and before not in done:
                    self.fail(f"{record} is handled before {before}")
        for record in handled:
            self._end(record)

    def letter(self, letter: DeadLetter) -> None:
        """A dead letter is durable."""
        records = [named(record) for record in orjson.loads(letter.payload)["Records"]]
        self.trace.append((round(self.clock.monotonic(), 6), letter.condition.value, records))
        if letter.condition is Condition.RETRY_ATTEMPTS_EXHAUSTED:
            if self.mapping.maximum_retry_attempts < 0:
                self.fail("given up with retries without end")
            if letter.attempts < 1:
                self.fail("given up without a try")
        if letter.condition is Condition.RECORD_AGE_EXCEEDED:
            if self.mapping.maximum_record_age_s < 0:
                self.fail("expired without an age limit")
            newest = max(self._record(record).time for record in records)
            if newest + self.mapping.maximum_record_age_s > self.clock.time() + 0.002:
                self.fail(f"expired too early: {records}")
        if letter.condition is Condition.RECORD_TOO_LARGE and len(records) != 1:
            self.fail("too large, but not alone")
        if unknown := set(records) - self.expected.keys():
            self.fail(f"unexpected records {sorted(unknown)} in a dead letter")
        self.letter_at = self.clock.monotonic()
        self.unsent.difference_update(records)
        for record in records:
            self._end(record)

    def _record(self, record: Id) -> Any:
        return next(one for one in self.stream.shards[record[0]].records if one.position == record[1])

    def _end(self, record: Id) -> None:
        self.ended[record] += 1
        self.ended_at[record] = self.clock.monotonic()
        if self.ended[record] > max(1, self.allowed[record]):
            self.fail(f"{record} is handled {self.ended[record]} times, no fault explains it")

    def committed(self, shard: str, mark: Mark) -> None:
        """A mark is stored."""
        self.trace.append((round(self.clock.monotonic(), 6), "mark", shard, mark.position))
        note = Note.unpack(mark.note)
        if bool(mark.note) and not (note.spans or note.finished):
            self.fail("a note that says nothing")
        for record in self.expected:
            if record[0] == shard and not self.ended[record] and is_durable(mark, note, record[1]):
                self.fail(f"the mark {mark.position} {note.finished} of {shard} passes {record}")
        live = self.stream.live
        if live is None or (shard not in live._mine and not self.stream.shards[shard].is_ended):
            self.fail(f"a commit of {shard}, which is not ours")

    def undurable(self, shard: str) -> list[Id]:
        """Return what has ended of a shard, but would come again from its stored mark."""
        mark = self.stream.shards[shard].mark
        note = Note.unpack(mark.note)
        return [
            record
            for record in self.expected
            if record[0] == shard and self.ended[record] and not is_durable(mark, note, record[1])
        ]

    def assigned(self, shard: str) -> None:
        """A shard is read from its stored mark on: what has ended behind it may come again."""
        self.trace.append((round(self.clock.monotonic(), 6), "assigned", shard))
        self.assigned_at[shard] = self.clock.monotonic()
        in_flight = {record for held in (*self.running.values(), *self.sending, self.unsent) for record in held}
        for record in self.undurable(shard):
            self.exposed += 1
            self.allowed[record] = max(self.allowed[record], self.ended[record] + 1)
        if self.mapping.tumbling_window_s:  # its state belongs to the mark, so what runs is run again
            for record in in_flight & self.expected.keys():
                if record[0] == shard:
                    self.allowed[record] = max(self.allowed[record], self.ended[record] + 2)

    def crashes(self) -> None:
        """The daemon dies while commits work: only what ended just now is not stored."""
        now = self.clock.monotonic()
        if self.sending or self.unsent or now - self.letter_at < COMMIT_WITHIN_S:
            return  # a batch has ended when all its dead letters are durable
        for shard in self.stream.live._mine if self.stream.live is not None else ():
            since = self.assigned_at[shard]
            late = [r for r in self.undurable(shard) if since < self.ended_at[r] < now - COMMIT_WITHIN_S]
            if late := [r for r in late if self.ended[r] >= self.allowed[r]]:  # else it is to come again
                self.fail(f"{late} ended long ago and are not committed")

    def check_end(self) -> None:
        """Everything is quiet."""
        if lost := [record for record in self.expected if not self.ended[record]]:
            self.fail(f"lost: {lost}")
        if self.running:
            self.fail(f"still running: {self.running}")


def is_durable(mark: Mark, note: Note, position: int) -> bool:
    """Whether a record is finished for whoever reads on from a mark."""
    return position <= mark.position or any(first <= position <= last for first, last in note.finished)


def named(record: dict[str, Any]) -> Id:
    """Return shard and position of a record in an event."""
    shard, _, position = record["id"].rpartition(":")
    return shard, int(position)


class CheckedCommits(list[tuple[str, Mark]]):
    """`ScriptedStream.commits`, looked at by the model as they are stored."""

    model: Model | None = None

    def append(self, item: tuple[str, Mark]) -> None:
        super().append(item)
        if self.model is not None:
            self.model.committed(*item)

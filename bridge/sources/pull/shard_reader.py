"""The live reader of a stream whose shards split and merge: takes them in their order, and keeps its marks."""

import asyncio
import contextlib
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import structlog

from bridge.aws.errors import AwsTroubleKind
from bridge.core.errors import SourceError, StoreError
from bridge.core.mapping import StartingPosition
from bridge.core.ports import Clock
from bridge.core.sources import ShardEvents, StreamMarks
from bridge.core.stream import BEFORE_ALL, Mark, Position, Shard
from bridge.sources.pull.lineage import ListedShard, Listing, first_marks, forgettable, startable
from bridge.sources.pull.shard_api import OLDEST, ShardApi, ShardCallFailed, Start, StreamFacts
from bridge.sources.pull.shard_cursor import ShardCursor, later_than
from bridge.sources.pull.shard_layout import Layout
from bridge.sources.pull.shard_reading import PARALLEL_READS, ShardReading
from bridge.sources.pull.shard_tip import CLOCKS_APART_S, Tips

log = structlog.get_logger("bridge.sources.shards")

LIST_S: Final = 30.0
"""Shards are listed so often, and at once when one ends."""
_LIST_AGAIN_S: Final = 1.0
"""After a listing that failed, or lacks what follows a shard that is finished; doubling up to LIST_S."""


_LISTINGS_MAX: Final = 5
_ANOTHER: Final = frozenset({AwsTroubleKind.NOT_FOUND, AwsTroubleKind.INVALID})
"""What is said of iterators and numbers of a stream that was deleted, where another has its name."""
_LATEST_PAGES_MAX: Final = 20
"""So much of a shard is read to find its last record, where a mapping begins behind it."""


class Beginning:
    """Where a mapping's shards begin: what is stored, or what its starting position says where nothing is.

    Args:
        api: the stream.
        marks: keeps its marks.
        mapping: the mapping's name, which they are kept under.
        clock: paces the calls.
    """

    def __init__(self, api: ShardApi, marks: StreamMarks, *, mapping: str, clock: Clock) -> None:
        self._api = api
        self._marks = marks
        self._mapping = mapping
        self._clock = clock

    async def find(self, position: StartingPosition, time: float | None) -> tuple[Layout, Listing, bool]:
        """Return what holds now, the shards, and whether it was made just now: marks that there are win.

        Raises:
            ShardCallFailed, StoreError.
        """
        stored = Layout.parse(await self._marks.layout(self._mapping))
        facts = await self._api.describe("" if stored is None else stored.arn)
        listed = await self._api.shards()
        if stored is not None and stored.is_of(facts):
            if startable(listed, await self._marks.load(self._mapping), frozenset()):
                return stored, listed, False
            facts = await self._api.describe()  # all of it is finished: another may have followed
            if stored.is_of(facts):
                return stored, listed, False
            listed = await self._api.shards()
        if stored is not None and _table(stored.arn) == _table(facts.arn):
            # Made anew under its name: nothing of it was read, and all of it came since.
            log.warning("stream_made_anew", mapping=self._mapping, stream=facts.arn, was=stored.arn)
            position, time = StartingPosition.TRIM_HORIZON, None
        return (await self.make(facts, listed, position, time))[0], listed, True

    async def make(
        self, facts: StreamFacts, listed: Listing, position: StartingPosition, time: float | None
    ) -> tuple[Layout, dict[Shard, Mark]]:
        """Store that all shards begin there, whatever was stored. Raises StoreError."""
        latest: dict[Shard, Position] | None = None
        if position is StartingPosition.LATEST:
            # What it means is stored before anything is handed out: a restart before the first record loses none that
            # came meanwhile. Where a shard's last record is not found, the time says it.
            tips = Tips(self._api, self._clock)
            position, time = StartingPosition.AT_TIMESTAMP, tips.now - CLOCKS_APART_S
            latest = await self._latest(tips, listed, time)
        layout = Layout(arn=facts.arn, created=facts.created, position=position, time=time)
        marks = first_marks(listed, latest=latest)
        await self._marks.replace(self._mapping, marks, layout=str(layout))
        return layout, marks

    async def _latest(self, tips: Tips, listed: Listing, time: float) -> dict[Shard, Position]:
        """Return the last sequence numbers of the open shards that have one since `time`, or of which all can be seen.

        A shard that is not among them holds none since: so it may as well begin at that time.
        """
        stored = await self._marks.load(self._mapping)
        room = asyncio.Semaphore(PARALLEL_READS)

        async def look(shard: ListedShard) -> Position | None:
            start = Start(time=time)
            if not self._api.has_times:
                mark = stored.get(shard.name)
                start = OLDEST if mark is None or mark.position < shard.first else Start(after=mark.position)
            async with room:
                found, is_tip = await tips.last_from(shard, start, pages_max=_LATEST_PAGES_MAX)
            if self._api.has_times or not is_tip:
                return found if is_tip else None
            return found if found is not None else start.after if start.after is not None else shard.first - 1

        shards = [shard for shard in listed.values() if not shard.is_closed]
        found = zip(shards, await asyncio.gather(*map(look, shards)), strict=True)
        return {shard.name: position for shard, position in found if position is not None}


def _table(arn: str) -> str:
    """Return what a stream is of: itself, or the table whose streams differ by their label."""
    return arn.partition("/stream/")[0]


class ShardReader(ShardReading):
    """`sources.Source` over one sharded stream."""

    def __init__(
        self,
        api: ShardApi,
        marks: StreamMarks,
        *,
        mapping: str,
        clock: Clock,
        position: StartingPosition,
        time: float | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Nothing is called before `open`.

        Args:
            api: the stream.
            marks: keeps how far each shard is finished.
            mapping: name that the marks are kept under.
            clock: paces the calls.
            position: where the mapping begins without marks.
            time: epoch seconds, with AT_TIMESTAMP.
            rng: jitter of back-offs.
        """
        super().__init__(api, mapping=mapping, clock=clock, rng=rng)
        self._marks = marks
        self._position = position
        self._time = time
        self._layout: Layout | None = None
        self._epochs: dict[Shard, int] = {}
        """Of the shards that are ours: until all of them is finished."""
        self._unfinished: set[Shard] = set()
        """Read to their end, and not told to be finished."""
        self._finished: set[Shard] = set()
        """Finished and stored; ours until the shards that follow were looked for."""
        self._look = asyncio.Event()
        self._listing_trouble = ""

    @property
    def trouble(self) -> str:
        """Return what keeps it from reading. See sources.Source."""
        return self._listing_trouble or super().trouble

    async def open(self, events: ShardEvents) -> None:
        """Find the stream, and take the shards that may be read. See sources.Source."""
        try:
            begin = Beginning(self._api, self._marks, mapping=self._mapping, clock=self._clock)
            self._layout, listed, is_new = await begin.find(self._position, self._time)
            self._events = events
            is_latest = is_new and self._position is StartingPosition.LATEST
            await self._begin(listed, from_latest=is_latest and not self._api.has_times)
        except ShardCallFailed as failure:
            raise failure.as_source_error() from failure
        except StoreError as error:
            raise self._unkept("cannot be had", error) from error
        self._spawn(self._follow())

    # --- which shards -------------------------------------------------------------------------

    async def _begin(self, listed: Listing, *, from_latest: bool = False) -> None:
        """Take every shard that may be read and is not ours, and forget what is of no use any more."""
        stored = dict(await self._marks.load(self._mapping))
        names = startable(listed, stored, self._epochs.keys())
        if names:
            await self._take_on(names, listed, stored, from_latest=from_latest)
        if gone := forgettable(listed, stored):
            await self._marks.discard(self._mapping, gone - self._epochs.keys())

    async def _take_on(
        self, names: list[Shard], listed: Listing, stored: Mapping[Shard, Mark], *, from_latest: bool
    ) -> None:
        marks = dict(await self._marks.claim(self._mapping, frozenset(names)))
        # One that comes of others begins with its oldest record, whatever the mapping's starting position was.
        new = {
            name: replace(marks[name], position=listed[name].first - 1)
            for name in names
            if name not in stored and name in listed
        }
        await self._marks.commit(self._mapping, new)
        marks.update(new)
        cursors = {name: self._cursor(mark, name, listed) for name, mark in marks.items()}
        if from_latest:  # the service cannot be asked for a time: what comes from now on, from now on
            for name, cursor in cursors.items():
                if marks[name].position != BEFORE_ALL:
                    continue
                cursor.iterator = await self._api.iterator(name, Start(is_latest=True))
                cursor.iterator_at = self._clock.monotonic()
        if self._events is None:
            return
        self._epochs.update((name, mark.epoch) for name, mark in marks.items())
        await self._events.assigned(marks)
        self._cursors.update(cursors)
        self._wake.set()

    def _cursor(self, mark: Mark, name: Shard, listed: Listing) -> ShardCursor:
        assert self._layout is not None
        layout, position = self._layout, mark.position
        cursor = ShardCursor(name=name, api=self._api, start=OLDEST, through=position)
        if position == BEFORE_ALL:
            if layout.position is StartingPosition.AT_TIMESTAMP and layout.time is not None:
                if self._api.has_times:
                    cursor.start = Start(time=layout.time)
                else:  # to the second: what came within it, before, comes again rather than not at all
                    cursor.part = later_than(self._api, float(int(layout.time)))
        elif name not in listed or position >= listed[name].first:
            cursor.start = Start(after=position)
        return cursor

    async def _follow(self) -> None:
        """Look for shards to begin: every half minute, and at once when one is finished."""
        failures = 0
        childless: set[Shard] = set()
        while True:
            await self._pause(LIST_S if not failures else min(LIST_S, _LIST_AGAIN_S * 2 ** min(failures - 1, 16)))
            self._look.clear()
            try:
                listed = await self._api.shards()
                childless |= self._drop_finished()
                await self._begin(listed)
                if not self._epochs:
                    await self._look_for_another("")
            except ShardCallFailed as failure:
                if failure.trouble.kind is AwsTroubleKind.NOT_FOUND:
                    raise failure.as_source_error() from failure
                failures += 1
                self._listing_trouble = str(failure)
                log.warning("shards_not_listed", mapping=self._mapping, reason=str(failure))
            except StoreError as error:
                raise self._unkept("are not stored", error) from error
            else:
                self._listing_trouble = ""
                childless.difference_update(*(shard.parents for shard in listed.values()))
                failures = failures + 1 if childless else 0
                if failures > _LISTINGS_MAX:  # none comes: the stream ends with it
                    childless, failures = set(), 0

    async def _look_for_another(self, known: str) -> None:
        """Raise SourceError where the marks are not those of the stream that there is now: it is begun anew then."""
        if self._layout is not None and not self._layout.is_of(await self._api.describe(known)):
            raise SourceError(f"{self._api.title} is another stream now")

    async def _failed(self, cursor: ShardCursor, failure: ShardCallFailed) -> None:
        if failure.trouble.kind in _ANOTHER and not failure.is_trimmed and self._layout is not None:
            with contextlib.suppress(ShardCallFailed):  # told by the next listing
                await self._look_for_another(self._layout.arn)
        await super()._failed(cursor, failure)

    async def _pause(self, delay_s: float) -> None:
        waits = {asyncio.create_task(self._clock.sleep(delay_s)), asyncio.create_task(self._look.wait())}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    def _drop_finished(self) -> set[Shard]:
        """Let go of the shards that are finished, and return them: those that follow them may be begun now."""
        finished, self._finished = self._finished, set()
        if finished and self._events is not None:
            for name in finished:
                self._epochs.pop(name, None)
                self._unfinished.discard(name)
            self._events.lost(finished)
            log.info("shards_finished", mapping=self._mapping, shards=sorted(finished))
        return finished

    def _has_ended(self, cursor: ShardCursor) -> None:
        self._unfinished.add(cursor.name)

    # --- sources.Source -----------------------------------------------------------------------

    async def commit(self, marks: Mapping[Shard, Mark]) -> None:
        """Store the marks. See sources.Source."""
        ours = {
            shard: mark if not mark.has_ended or shard in self._unfinished else replace(mark, has_ended=False)
            for shard, mark in marks.items()
            if self._epochs.get(shard) == mark.epoch
        }
        if not ours:
            return
        try:
            await self._marks.commit(self._mapping, ours)
        except StoreError as error:
            raise self._unkept("are not stored", error) from error
        if finished := {shard for shard, mark in ours.items() if mark.has_ended}:
            self._finished |= finished
            self._look.set()

    async def close(self) -> None:
        """Hand the shards back and end. See sources.Source."""
        try:
            await self._leave(self._epochs)
        finally:
            self._epochs = {}

    def _unkept(self, what: str, error: StoreError) -> SourceError:
        return SourceError(f"the marks of mapping {self._mapping} {what}: {error}")

"""Keeps the event source mappings running: starts, pauses, resets and replaces their workers, and says how they are."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from bridge.core.errors import ConfigError, MappingNotFound, SourceError, StoreError
from bridge.core.loops import Loops
from bridge.core.mapping import NO_RECORDS, USER_ACTION, EventSourceMapping, MappingState, StartingPosition
from bridge.core.ports import Clock, Destination, Journal
from bridge.core.sources import EventSource, MappingStates, MappingStatus, QueueOrigin, Standing
from bridge.core.stream import Mark, Shard
from bridge.pipeline.standings import Standings
from bridge.pipeline.supervision import LiveSlots, Streams, Tasks
from bridge.pipeline.workers import Worker, Workers, queue_of
from bridge.util import telemetry

log = structlog.get_logger("bridge.mappings")

_ASK_AGAIN_S: Final = 2.0
"""Between looks for others in a consumer group, while no broker answers."""
_PAUSE_ANSWER_S: Final = 2.0
"""How long `pause` waits for running batches before it answers `Disabling`."""
_RESET_S: Final = 30.0
"""How long a reset waits for running batches; what still runs then is cut and comes again from the new mark."""


@dataclass(slots=True, kw_only=True)
class _Entry:
    """A mapping and, while it is enabled, its worker."""

    mapping: EventSourceMapping
    wanted: EventSourceMapping | None = None
    """What it is to become once its batches have ended under `mapping`."""
    modified_at: float
    is_paused: bool = False
    state: MappingState = MappingState.CREATING
    reason: str = USER_ACTION
    reached_by: object = None
    source: EventSource | None = None
    queue: QueueOrigin | None = None
    """Where it reads a queue: then `source` is None."""
    worker: Worker | None = None
    result: str = NO_RECORDS
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def task(self) -> str:
        return f"mapping:{self.mapping.name}"


class MappingSupervisor:
    """`ports.Mappings` over workers.

    Args:
        slots: where invocations run.
        streams: finds the stream of a mapping, and where its failures go.
        spill: the local dead letters, where that destination fails.
        journal: where `archive = true` copies records.
        states: which mappings somebody paused.
        tasks: keeps the workers running.
        clock: time.
        asks_before_remote: a consumer group with members from elsewhere is joined only where that is allowed.
        allow_remote: …for all mappings.
        loops: stops functions that call themselves through queues; None: nothing does.
    """

    def __init__(
        self,
        *,
        slots: LiveSlots,
        streams: Streams,
        spill: Destination,
        journal: Journal,
        states: MappingStates,
        tasks: Tasks,
        clock: Clock,
        asks_before_remote: bool = False,
        allow_remote: bool = False,
        loops: Loops | None = None,
    ) -> None:
        self._slots = slots
        self._streams = streams
        self._workers = Workers(slots=slots, spill=spill, journal=journal, clock=clock, loops=loops)
        self._states = states
        self._tasks = tasks
        self._clock = clock
        self._standings = Standings(clock)
        self._asks = asks_before_remote and not allow_remote
        self._entries: dict[str, _Entry] = {}
        self._leaving: dict[str, _Entry] = {}
        """Those that are gone and whose batches run yet."""
        self._changes: set[asyncio.Future[None]] = set()
        self._turn = 0
        self._is_draining = False
        slots.on_free(self.kick)
        slots.live_work(self._wants_slot)

    # --- life ---------------------------------------------------------------------------------

    async def open(self, mappings: Sequence[EventSourceMapping]) -> None:
        """Know these mappings and have their records kept; nothing is read before `start`.

        Raises:
            StoreError: the marks of one could not be read or stored.
        """
        paused = await self._states.paused()
        for mapping in mappings:
            entry = _Entry(mapping=mapping, modified_at=self._clock.time(), is_paused=mapping.name in paused)
            self._add(entry)
            try:
                await self._streams.prepare(mapping, self._find(entry))
            except (ConfigError, SourceError) as error:
                entry.state, entry.reason = MappingState.FAILED, str(error)

    def start(self) -> None:
        """Read what is enabled, from now on."""
        for entry in self._entries.values():
            self._later(self._start(entry))

    def _add(self, entry: _Entry) -> None:
        name = entry.mapping.name
        self._entries[name] = entry
        telemetry.MAPPING_BEHIND.labels(mapping=name).set_function(lambda: self._behind(name))

    async def configure(self, mappings: Sequence[EventSourceMapping]) -> None:
        """Take these mappings: new ones start, those that are gone stop, changed ones go on under the new settings.

        Returns at once where a batch still runs under the old ones; the mapping is `Updating` until it has ended.
        """
        paused = await self._states.paused()
        wanted = {mapping.name: mapping for mapping in mappings}
        for name in [name for name in self._entries if name not in wanted]:
            gone = self._entries.pop(name)
            gone.state, gone.reason = MappingState.DELETING, USER_ACTION
            self._leaving.setdefault(name, gone)  # one that left before and runs yet: this one has not begun
            self._later(self._stop(gone))
        for name, mapping in wanted.items():
            entry = self._entries.get(name)
            if entry is None:
                before = self._leaving.get(name)  # where its batch runs yet, this one waits: they share marks and task
                lock = asyncio.Lock() if before is None else before.lock
                entry = _Entry(mapping=mapping, modified_at=self._clock.time(), is_paused=name in paused, lock=lock)
                self._add(entry)
                self._later(self._start(entry))
            elif (entry.wanted or entry.mapping) != mapping or entry.reached_by != self._streams.reached_by(mapping):
                entry.state, entry.reason = MappingState.UPDATING, USER_ACTION
                if entry.mapping.enabled is not mapping.enabled:
                    entry.state = MappingState.ENABLING if mapping.enabled else MappingState.DISABLING
                entry.wanted = mapping
                self._later(self._replace(entry, mapping))

    def _later(self, work: Awaitable[None]) -> "asyncio.Future[None]":
        task = asyncio.ensure_future(work)
        self._changes.add(task)
        task.add_done_callback(self._changed)
        return task

    def _changed(self, task: "asyncio.Future[None]") -> None:
        self._changes.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("mapping_change_failed", error=repr(error), exc_info=error)

    async def _replace(self, entry: _Entry, mapping: EventSourceMapping) -> None:
        async with entry.lock:
            await self._halt(entry, deadline_s=None)
            if entry.wanted is not mapping:
                return  # changed again meanwhile: that one waits behind this
            if entry.mapping.source != mapping.source:
                self._streams.forget(entry.mapping)
            entry.mapping, entry.wanted, entry.source, entry.queue = mapping, None, None, None
            self._standings.forget(mapping.name)
            entry.modified_at = self._clock.time()
            await self._run(entry)

    async def _start(self, entry: _Entry) -> None:
        async with entry.lock:
            await self._run(entry)

    async def _stop(self, entry: _Entry) -> None:
        name = entry.mapping.name
        async with entry.lock:
            await self._halt(entry, deadline_s=None)
            if self._leaving.get(name) is entry:
                del self._leaving[name]
            after = self._entries.get(name)
            if after is None or after.mapping.source != entry.mapping.source:
                self._streams.forget(entry.mapping)
            if after is None and entry.mapping.is_made:
                await self._streams.discard(entry.mapping)

    async def _run(self, entry: _Entry) -> None:
        """Start the worker of a mapping that is enabled and has not been removed meanwhile."""
        mapping = entry.mapping
        if self._entries.get(mapping.name) is not entry:
            return
        try:
            entry.reached_by = self._streams.reached_by(mapping)
            source = self._find(entry)
            await self._streams.prepare(mapping, source)
            if self._is_draining or not mapping.enabled or entry.is_paused:
                entry.state, entry.reason = MappingState.DISABLED, USER_ACTION
                return
            if said := self._streams.refusal(mapping):  # another role, once there is one, is another `reached_by`
                entry.state, entry.reason = MappingState.ENABLING, said
                log.warning("mapping_not_started", mapping=mapping.name, reason=said)
                return
            worker = self._worker(entry)
            if self._asks and source.is_remote and not mapping.allow_remote and not await self._may_read(entry):
                return
        except (ConfigError, SourceError, StoreError) as error:
            entry.state, entry.reason = MappingState.FAILED, str(error)
            log.error("mapping_not_started", mapping=mapping.name, reason=str(error))  # noqa: TRY400 - one line
            return
        entry.worker = worker
        entry.state, entry.reason = MappingState.ENABLED, USER_ACTION
        self._tasks.start(entry.task, entry.worker.run)
        log.info("mapping_started", mapping=mapping.name, source=mapping.source, function=mapping.function)

    def _find(self, entry: _Entry) -> EventSource | QueueOrigin:
        """Return the stream or the queue of a mapping. Raises ConfigError."""
        if entry.queue is None and entry.source is None:
            entry.queue = self._streams.queue(entry.mapping)
            if entry.queue is None:
                entry.source = self._streams.event_source(entry.mapping)
            elif entry.result == NO_RECORDS:
                entry.result = ""  # a queue's mapping has none (semantics 3.2)
        found = entry.queue or entry.source
        assert found is not None
        return found

    def _worker(self, entry: _Entry) -> Worker:
        mapping = entry.mapping
        if entry.queue is not None:
            return self._workers.of_queue(mapping, entry.queue)
        assert entry.source is not None
        return self._workers.of_stream(mapping, entry.source, destination=self._streams.destination(mapping))

    async def _may_read(self, entry: _Entry) -> bool:
        """Whether nobody is disturbed by accident."""
        if entry.queue is not None:
            entry.state = MappingState.DISABLED
            entry.reason = (
                f"it takes messages out of {entry.mapping.source} for good: allow that with --allow-remote, "
                "or allow_remote = true in the file"
            )
            log.warning("mapping_not_started", mapping=entry.mapping.name, reason=entry.reason)
            return False
        assert entry.source is not None
        return await self._may_join(entry, entry.source)

    async def _may_join(self, entry: _Entry, source: EventSource) -> bool:
        """Ask who else consumes with the mapping's marks; nobody may be disturbed by accident.

        While that cannot be asked (no broker answers) the mapping is `Enabling`, and it is asked again.
        """
        try:
            others = await source.others()
        except SourceError as error:
            entry.state, entry.reason = MappingState.ENABLING, str(error)
            log.warning("mapping_not_started", mapping=entry.mapping.name, reason=str(error))
            self._later(self._start_later(entry))
            return False
        if others:
            entry.state = MappingState.DISABLED
            entry.reason = (
                f"others share what it reads ({', '.join(others)}): "
                "join them with --allow-remote, or allow_remote = true in the file"
            )
            log.warning("mapping_not_started", mapping=entry.mapping.name, reason=entry.reason)
        return not others

    async def _start_later(self, entry: _Entry) -> None:
        await self._clock.sleep(_ASK_AGAIN_S)
        async with entry.lock:
            if entry.state is MappingState.ENABLING and entry.worker is None:
                await self._run(entry)

    async def _halt(self, entry: _Entry, *, deadline_s: float | None) -> None:
        """Stop the worker, what runs first, at most `deadline_s` seconds (None: for as long as it takes)."""
        worker = entry.worker
        if worker is None:
            return
        if deadline_s is None:
            while not await worker.drain(deadline_s=60.0):
                log.info("mapping_waits", mapping=entry.mapping.name, running=worker.running)
        else:
            await worker.drain(deadline_s=deadline_s)
        await self._tasks.stop(entry.task)
        await worker.stop()
        entry.worker, entry.result = None, worker.result  # last: one that is cut short is still `drain`'s

    async def drain(self, *, deadline_s: float) -> None:
        """Stop all workers at once, within one deadline: the end of the daemon."""
        self._is_draining = True
        await self._standings.close()
        for change in self._changes:
            change.cancel()
        await asyncio.gather(*self._changes, return_exceptions=True)
        entries = [*self._entries.values(), *self._leaving.values()]
        await asyncio.gather(*(self._halt(entry, deadline_s=deadline_s) for entry in entries))

    # --- slots --------------------------------------------------------------------------------

    def _running(self) -> list[Worker]:
        return [entry.worker for entry in self._entries.values() if entry.worker is not None]

    def kick(self) -> None:
        """Tell the mappings of a free slot, or of functions that changed, each time another one first."""
        workers = self._running()
        if workers:
            self._turn = (self._turn + 1) % len(workers)
            for worker in [*workers[self._turn :], *workers[: self._turn]]:
                worker.kick()

    def _wants_slot(self) -> bool:
        return any(worker.wants_slot for worker in self._running())

    # --- ports.Mappings -----------------------------------------------------------------------

    def get(self, name: str) -> EventSourceMapping:
        """Return a mapping; raises MappingNotFound."""
        return self._entry(name).mapping

    def source(self, name: str) -> EventSource:
        """Return the stream of a mapping, running or not; raises MappingNotFound or ConfigError."""
        entry = self._entry(name)
        return entry.source or self._streams.event_source(entry.mapping)

    def status(self) -> Sequence[MappingStatus]:
        """Return every mapping, by name; one that is on its way out while its batches run yet."""
        return [self._status(entry) for _, entry in sorted((self._leaving | self._entries).items())]

    def is_busy(self, name: str) -> bool:
        """Tell whether an earlier change of a mapping is not through; one that waits for a broker is."""
        entry = self._entries.get(name)
        return entry is not None and (
            entry.state in (MappingState.CREATING, MappingState.UPDATING, MappingState.DISABLING)
            or (entry.state is MappingState.ENABLING and entry.lock.locked())
        )

    async def look(self) -> None:
        """Look at the stored marks of those that are paused. See ports.Mappings."""
        await self._standings.look(
            {
                name: entry.source
                for name, entry in self._entries.items()
                # Not at one that was refused: its source may be no business of this daemon's.
                if entry.source is not None and entry.state is MappingState.DISABLED and entry.reason == USER_ACTION
            }
        )

    def _status(self, entry: _Entry) -> MappingStatus:
        worker = entry.worker
        standing = self._standings.of(entry.mapping.name) if entry.state is MappingState.DISABLED else Standing()
        state, reason = entry.state, entry.reason
        if state is MappingState.ENABLED and (error := self._tasks.failed().get(entry.task)):
            state, reason = MappingState.FAILED, error
        elif worker is not None and state is MappingState.ENABLED and worker.in_trouble:
            reason = worker.in_trouble
        return MappingStatus(
            mapping=entry.mapping,
            state=state,
            reason=reason,
            result=worker.result if worker is not None else entry.result,
            modified_at=entry.modified_at,
            running=worker.running if worker is not None else 0,
            shards=worker.shards() if worker is not None else standing.shards,
            behind=standing.behind,
            queue=queue_of(worker),
        )

    def _behind(self, name: str) -> float:
        entry = self._entries.get(name)
        if entry is None or entry.worker is None:
            return 0.0
        queue = queue_of(entry.worker)
        if queue is not None:
            return float(0 if queue.facts is None else (queue.facts.visible or 0) + (queue.facts.delayed or 0))
        return float(sum(shard.behind or 0 for shard in entry.worker.shards()))

    async def pause(self, name: str) -> MappingStatus:
        """Disable it, over restarts too. See ports.Mappings."""
        entry = self._entry(name)
        await self._states.pause(name)
        if not entry.is_paused:
            entry.is_paused = True
            entry.state, entry.reason = MappingState.DISABLING, USER_ACTION
            change = self._later(self._disable(entry))
            await asyncio.wait({change}, timeout=_PAUSE_ANSWER_S)
        return self._status(entry)

    async def _disable(self, entry: _Entry) -> None:
        async with entry.lock:
            await self._halt(entry, deadline_s=None)
            if entry.is_paused:
                self._standings.forget(entry.mapping.name)
                entry.state = MappingState.DISABLED
                entry.modified_at = self._clock.time()

    async def resume(self, name: str) -> MappingStatus:
        """Enable it again, from its marks. See ports.Mappings."""
        entry = self._entry(name)
        await self._states.resume(name)
        if entry.is_paused or entry.worker is None:
            entry.is_paused = False
            entry.state, entry.reason = MappingState.ENABLING, USER_ACTION
            async with entry.lock:
                if entry.worker is None:
                    await self._run(entry)
            entry.modified_at = self._clock.time()
        return self._status(entry)

    async def reset(
        self, name: str, start: StartingPosition, *, timestamp: float | None = None
    ) -> Mapping[Shard, Mark]:
        """Move its marks. See ports.Mappings."""
        entry = self._entry(name)
        self._find(entry)
        if entry.queue is not None:
            raise SourceError(
                f"{name} reads a queue, which has no marks to move: what was deleted is gone from it; "
                f"bridge replay --mapping {name} sends messages again from the archive"
            )
        async with entry.lock:
            was_running = entry.worker is not None
            await self._halt(entry, deadline_s=_RESET_S)
            try:
                source = entry.source or self._streams.event_source(entry.mapping)
                marks = await source.reset(start, timestamp=timestamp)
                log.info("mapping_reset", mapping=name, position=start.value, shards=len(marks))
                return marks
            finally:
                self._standings.forget(name)
                if was_running:
                    await self._run(entry)

    def _entry(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            raise MappingNotFound(f"there is no event source mapping {name}; `bridge mappings list` shows them")
        return entry

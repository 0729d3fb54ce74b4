"""A function of this daemon as a target of records: the record is an asynchronous event of its own."""

import uuid
from collections.abc import Callable
from typing import Final

from bridge.core import limits
from bridge.core.errors import FunctionNotFound, LaneFull, RecursiveInvocation, StoreError
from bridge.core.invocation import DeadLetter, InvocationType
from bridge.core.loops import Loops
from bridge.core.outcome import OutboxEntry, RecordRefused, TargetTrouble
from bridge.core.ports import Clock, Intake
from bridge.core.record import Record
from bridge.events.outcomes import record_of, told_by

SOURCE: Final = "destination"
"""Source of the events that records of other functions are."""
_DEDUPLICATE_S: Final = float(limits.DEDUPLICATION_WINDOW_DEFAULT_S)
"""A record that is sent again after a crash is one event; the index is kept for at least so long."""


class FunctionTarget:
    """`outcome.Transport` into the lane of a function.

    Args:
        function: `name[:qualifier]`.
        name: as its ARN has it; it is told no more once it is RECURSION_MAX times among those who led to a record.
        intake: takes events.
        clock: the daemon's.
        daemon: named in pointers.
        bytes_max: of an asynchronous event.
        loops: is told what led to each event, and says which functions may be in a loop; None: nobody counts.
        trace: returns the trace header that goes with a record.
    """

    def __init__(
        self,
        function: str,
        *,
        name: str,
        intake: Intake,
        clock: Clock,
        daemon: str,
        bytes_max: int,
        loops: Loops | None = None,
        trace: Callable[[OutboxEntry, DeadLetter | None], str] = lambda _entry, _letter: "",
    ) -> None:
        self._function = function
        self._name = name
        self._intake = intake
        self._clock = clock
        self._daemon = daemon
        self._bytes_max = bytes_max
        self._loops = loops
        self._trace = trace
        self.concurrency = limits.TARGET_SENDS_MAX

    async def send(self, entry: OutboxEntry, letter: DeadLetter | None) -> None:
        """Return once the record is stored as an event."""
        record = record_of(entry, letter, with_payload=False, daemon=self._daemon)
        if len(record) > self._bytes_max:
            raise RecordRefused(f"{len(record)} bytes; an asynchronous event has {self._bytes_max} at most")
        if (times := told_by(record)[self._name]) >= limits.RECURSION_MAX and not self._may_loop():
            raise RecordRefused(
                f"function {self._name} comes {times} times in what led to this record: its destinations form a loop"
            )
        event = Record(
            id=str(uuid.uuid4()),
            source=SOURCE,
            function=self._function,
            invocation_type=InvocationType.EVENT,
            received_at=self._clock.time(),
            payload=record,
            delivery_id=f"{entry.kind.value} {entry.id} {entry.created_at!r} {self._function}",
        )
        if self._loops is not None:
            try:
                self._loops.admit(event.id, event.lane, self._trace(entry, letter))
            except RecursiveInvocation as error:
                raise RecordRefused(str(error)) from error
        try:
            await self._intake.submit(event, deduplicate_s=_DEDUPLICATE_S)
        except (FunctionNotFound, LaneFull, StoreError) as error:
            raise TargetTrouble(f"function {self._function}: {error}") from error

    def _may_loop(self) -> bool:
        return self._loops is not None and self._loops.allows(self._function.partition(":")[0])

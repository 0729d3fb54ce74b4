"""What is given up: AWS's record of the failure, and the dead letter that keeps the records themselves."""

import hashlib
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import structlog

from bridge.core.errors import DestinationError, StoreError
from bridge.core.invocation import Condition, DeadLetter, ResultKind
from bridge.core.mapping import EventSourceMapping
from bridge.core.ports import Clock, Destination
from bridge.core.record import DamagedRecord
from bridge.core.sources import EventShape, WindowPart
from bridge.core.stream import Position, Shard
from bridge.events.outcomes import timestamp
from bridge.pipeline.streams.block import Discard
from bridge.util import telemetry

log = structlog.get_logger("bridge.mappings")

_TRIES_MAX = 5
"""With the failure destination, before the local dead letters take it."""
_WAIT_MIN_S = 0.5
_WAIT_MAX_S = 10.0


class Failures:
    """Sends discarded records to the mapping's failure destination; to the local dead letters where that fails."""

    def __init__(
        self,
        *,
        mapping: EventSourceMapping,
        shape: EventShape,
        destination: Destination,
        spill: Destination,
        clock: Clock,
        queue: str = "default",
    ) -> None:
        self._mapping = mapping
        self._shape = shape
        self._destination = destination
        self._spill = spill
        self._clock = clock
        self._queue = queue

    async def discard(
        self, discard: Discard, *, function_arn: str, window: WindowPart | None, waits: Callable[[str], None]
    ) -> None:
        """Return once the records are durable elsewhere: the destination, else the local dead letters, for ever.

        `waits` is told, after each try, why they are not.
        """
        letter = self._letter(discard, function_arn=function_arn, window=window)
        await self._send(letter, records=len(discard.batch), waits=waits)

    async def damaged(self, record: DamagedRecord, *, shard: Shard, function_arn: str) -> None:
        """Return once a damaged record, as the disk gives it, is a dead letter: as durable as `discard`."""
        now = self._clock.time()
        times_ms = [round(record.received_at * 1000)]
        info = self._shape.batch_info(shard, [record.position], times_ms, payload_bytes=len(record.payload))
        letter = DeadLetter(
            # Of the record, not of this try: read again after a crash, it is the same dead letter.
            id=self._id(record.id),
            queue=self._queue,
            function=self._mapping.function,
            source=self._mapping.name,
            received_at=record.received_at,
            dead_at=now,
            condition=Condition.RECORD_DAMAGED,
            attempts=0,
            payload=record.payload,
            error_message=f"event {record.id}: {record.damage}",
            mapping=self._mapping.name,
            item_failures=self._mapping.reports_item_failures,
            outcome=orjson.dumps(
                {
                    "requestContext": {
                        "requestId": record.id,
                        "functionArn": function_arn,
                        "condition": Condition.RECORD_DAMAGED.value,
                        "approximateInvokeCount": 0,
                    },
                    "version": "1.0",
                    "timestamp": timestamp(now),
                    **info,
                }
            ),
        )
        await self._send(letter, records=1, waits=lambda _: None)

    def _id(self, what: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._queue} {self._mapping.name} {what}"))

    async def _send(self, letter: DeadLetter, *, records: int, waits: Callable[[str], None]) -> None:
        wait_s = _WAIT_MIN_S
        tries = 0
        while True:
            destination = self._destination if tries < _TRIES_MAX else self._spill
            try:
                await destination.send(letter)
            except (DestinationError, StoreError) as error:
                tries += 1
                waits(str(error))
                log.warning("batch_unsettled", mapping=self._mapping.name, dead_letter=letter.id, error=str(error))
                await self._clock.sleep(wait_s)
                wait_s = min(wait_s * 2, _WAIT_MAX_S)
            else:
                break
        telemetry.DEAD_LETTERS.labels(function=self._mapping.function, condition=letter.condition.value).inc()
        log.warning(
            "batch_dead_lettered",
            mapping=self._mapping.name,
            dead_letter=letter.id,
            condition=letter.condition.value,
            records=records,
            error_type=letter.error_type,
        )

    def _letter(self, discard: Discard, *, function_arn: str, window: WindowPart | None) -> DeadLetter:
        batch, condition = discard.batch, discard.condition
        last = batch.tries.last
        part = batch.parts[0] if batch.parts else None
        payload = self._shape.event(
            [(part.lane.shard.name, [one for piece in part.pieces for one in piece.fragments()])] if part else [],
            window,
        )
        positions: list[Position] = [chunk.positions[index] for chunk, index in batch.records()]
        times_ms = [chunk.times_ms[index] for chunk, index in batch.records()]
        now = self._clock.time()
        is_known = last is not None and condition is not Condition.RECORD_AGE_EXCEEDED
        error = last if last is not None and last.kind is not ResultKind.OK else None
        return DeadLetter(
            # Of the records, not of this try: a crash before the mark is stored gives the same batch the same letter.
            id=self._id(hashlib.sha256(payload).hexdigest()),
            queue=self._queue,
            function=self._mapping.function,
            source=self._mapping.name,
            received_at=(min((time for time in times_ms if time >= 0), default=0) / 1000) or now,
            dead_at=now,
            condition=condition,
            attempts=batch.tries.invocations,
            payload=payload,
            error_type=error.error_type if error else "",
            error_message=error.error_message if error else "",
            response=last.payload if last is not None else b"",
            history=batch.tries.history,
            mapping=self._mapping.name,
            item_failures=self._mapping.reports_item_failures,
            outcome=orjson.dumps(
                {
                    "requestContext": {
                        "requestId": batch.tries.history[-1].request_id if batch.tries.history else str(uuid.uuid4()),
                        "functionArn": function_arn,
                        "condition": condition.value,
                        "approximateInvokeCount": max(1, batch.tries.invocations),
                    },
                    **(_response(last) if is_known and last is not None else {}),
                    "version": "1.0",
                    "timestamp": timestamp(now),
                    **self._batch_info(part, positions, times_ms, payload_bytes=len(payload)),
                }
            ),
        )

    def _batch_info(
        self, part: Any, positions: Sequence[Position], times_ms: Sequence[int], *, payload_bytes: int
    ) -> dict[str, Any]:
        if part is None or not positions:
            return {}
        return dict(self._shape.batch_info(part.lane.shard.name, positions, times_ms, payload_bytes=payload_bytes))


def _response(last: Any) -> dict[str, Any]:
    is_error = last.kind is ResultKind.FUNCTION_ERROR
    return {
        "responseContext": {
            "statusCode": 200,
            "executedVersion": last.version,
            "functionError": "Unhandled" if is_error else None,
        }
    }

"""How core values look as JSON: one function a value, and the words for the state an event is in."""

import base64
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

import orjson

from bridge.core.invocation import Attempt, AttemptStatus, Condition, DeadLetter, InvocationType, tries
from bridge.core.outcome import OutboxEntry, TargetStatus
from bridge.core.ports import Job, LaneStatus
from bridge.core.queues import QueueStatus
from bridge.core.record import DamagedRecord, Parked, Record
from bridge.core.sources import ARCHIVE_PREFIX, MappingStatus, RecordReader, ShardStatus
from bridge.core.stream import Position
from bridge.pipeline.ranges import RangeRecord

_SUCCESSES: Final = frozenset({AttemptStatus.OK, AttemptStatus.HANDED_OVER, AttemptStatus.REPLAYED_OK})
FAILURES: Final = frozenset(AttemptStatus) - _SUCCESSES - {AttemptStatus.STARTED, AttemptStatus.SENT}

_EXACT_MAX: Final = 2**53 - 1
"""The largest whole number that every JSON reader keeps."""


def event_state(record: Record, attempts: Sequence[Attempt], readers: Sequence[RecordReader] = ()) -> str:
    """Return one word or two for where an event is.

    `waiting`, `running`, `retrying`, `succeeded`, `handed over` (to a remote function's own queue), `dead`; `answered`
    and `failed` for synchronous ones; `archived` for what a mapping copied. Of a source that only mappings read:
    `waiting` until all of them are done with it, then `settled` (handled, filtered out, or with the dead letters), and
    `stored` where none reads it.
    """
    is_async = record.invocation_type is InvocationType.EVENT
    attempts = tries(attempts)
    if not attempts:
        if is_async and not record.function:
            return "stored" if not readers else "settled" if all(r.is_finished for r in readers) else "waiting"
        if record.source.startswith(ARCHIVE_PREFIX):
            return "archived"
        return "waiting" if is_async else "answered"
    last = attempts[-1].status
    if last in _SUCCESSES:
        return "handed over" if last is AttemptStatus.HANDED_OVER else "succeeded"
    if last is AttemptStatus.REPLAYED_FAILED:
        live = [attempt for attempt in attempts if attempt.status is not AttemptStatus.REPLAYED_FAILED]
        return event_state(record, live, readers)
    if last is AttemptStatus.ERROR:
        return "failed"
    return {AttemptStatus.STARTED: "running", AttemptStatus.DEAD: "dead"}.get(last, "retrying")


def is_settled(record: Record, attempts: Sequence[Attempt], readers: Sequence[RecordReader] = ()) -> bool:
    """Tell whether nothing more will happen to an event by itself."""
    return event_state(record, attempts, readers) not in ("waiting", "running", "retrying")


def reader_view(reader: RecordReader) -> dict[str, object]:
    """A mapping that reads an event."""
    return {"mapping": reader.mapping, "shard": reader.shard, "finished": reader.is_finished}


def embedded(payload: bytes) -> orjson.Fragment:
    """Return a JSON payload to stand in a line of NDJSON as it is: numbers keep their digits.

    A line break can only be white space between tokens there (inside a string it is escaped): it becomes a blank.
    """
    return orjson.Fragment(payload.replace(b"\n", b" ").replace(b"\r", b" ") or b"{}")


def event_view(record: Record, attempts: Sequence[Attempt], readers: Sequence[RecordReader] = ()) -> dict[str, object]:
    """An event in a list."""
    attempts = tries(attempts)
    ended = [attempt for attempt in attempts if attempt.status is not AttemptStatus.STARTED]
    last = ended[-1] if ended else None
    return {
        "id": record.id,
        "received_at": record.received_at,
        "source": record.source,
        "function": record.function,
        "invocation_type": record.invocation_type.value,
        "bytes": len(record.payload),
        "state": event_state(record, attempts, readers),
        "attempts": max((attempt.number for attempt in attempts if not attempt.replay), default=0),
        "duration_ms": last.duration_ms if last else None,
        "error_type": last.error_type if last else "",
        "error_message": last.error_message if last else "",
    }


def whole_event(record: Record) -> dict[str, object]:
    """An event as it is exported: everything needed to send it again."""
    damage = record.damage if isinstance(record, DamagedRecord) else None
    return {
        "id": record.id,
        "received_at": record.received_at,
        "source": record.source,
        "function": record.function,
        "invocation_type": record.invocation_type.value,
        "delivery_id": record.delivery_id,
        "client_context": embedded(record.client_context) if record.client_context else None,
        "event": embedded(record.payload) if damage is None else response_view(record.payload),
    } | ({} if damage is None else {"damage": damage})


def record_view(record: RangeRecord) -> dict[str, object]:
    """A record of a mapping's stream as it is exported."""
    return {
        "shard": record.shard,
        "position": position_view(record.position),
        "time": record.time_ms / 1000 if record.time_ms >= 0 else None,
        "record": embedded(record.fragment),
    }


def attempt_view(attempt: Attempt) -> dict[str, object]:
    """One row of an event's history."""
    return {
        "number": attempt.number,
        "status": attempt.status.value,
        "function": attempt.function,
        "version": attempt.version,
        "started_at": attempt.started_at,
        "duration_ms": attempt.duration_ms,
        "error_type": attempt.error_type,
        "error_message": attempt.error_message,
        "log_tail": attempt.log_tail.decode("utf-8", "replace"),
        "log_stream": attempt.log_stream,
        "replay": attempt.replay,
    }


def sent_view(attempt: Attempt) -> dict[str, object]:
    """Where a record of an event's end went."""
    return {"at": attempt.started_at, "kind": attempt.error_type, "target": attempt.error_message}


def outbox_view(entry: OutboxEntry, *, whole: bool = False) -> dict[str, object]:
    """A record that waits for its target, or is kept since it does not take it."""
    view: dict[str, object] = {
        "number": entry.number,
        "target": entry.place.target,
        "connection": entry.place.connection,
        "kind": entry.kind.value,
        "id": entry.id,
        "queue": entry.queue,
        "function": entry.function,
        "created_at": entry.created_at,
        "attempts": entry.attempts,
        "due_at": entry.due_at or None,
        "last_error": entry.last_error,
        "pointer": entry.is_pointer,
        "kept": entry.is_kept,
    }
    return view | ({"record": response_view(entry.record)} if whole else {})


def target_view(status: TargetStatus) -> dict[str, object]:
    """A target and what waits for it."""
    return {
        "target": status.place.target,
        "connection": status.place.connection,
        "waiting": status.waiting,
        "kept": status.kept,
        "oldest_at": status.oldest_at,
        "failures": status.failures,
        "failing_since": status.failing_since,
        "retry_at": status.retry_at,
        "last_error": status.last_error,
    }


def parked_view(entry: Parked) -> dict[str, object]:
    """A wait for the next attempt."""
    return {
        "due_at": entry.due_at,
        "attempts": entry.attempts,
        "backoffs": entry.backoffs,
        "error_type": entry.error_type,
        "error_message": entry.error_message,
        "redrive": entry.redrive,
        "job": entry.job,
        "queue": entry.queue,
    }


def dead_letter_view(letter: DeadLetter) -> dict[str, object]:
    """A dead letter in a list."""
    return {
        "id": letter.id,
        "queue": letter.queue,
        "function": letter.function,
        "source": letter.source,
        "received_at": letter.received_at,
        "dead_at": letter.dead_at,
        "condition": letter.condition.value,
        "attempts": letter.attempts,
        "bytes": len(letter.payload),
        "error_type": letter.error_type,
        "error_message": letter.error_message,
        "state": letter.state,
        "redrives": letter.redrives,
    }


def whole_dead_letter(letter: DeadLetter) -> dict[str, object]:
    """A dead letter with its event, its last answer and its history."""
    is_damaged = letter.condition is Condition.RECORD_DAMAGED
    return dead_letter_view(letter) | {
        "position": letter.position if letter.position >= 0 else None,
        "event": response_view(letter.payload) if is_damaged else embedded(letter.payload),
        "client_context": embedded(letter.client_context) if letter.client_context else None,
        "mapping": letter.mapping or None,
        "outcome": embedded(letter.outcome) if letter.outcome else None,
        "response": response_view(letter.response),
        "history": [attempt_view(attempt) for attempt in letter.history],
    }


def response_view(response: bytes) -> object:
    """What a function answered, or the disk gave: JSON as it is, anything else as base64."""
    if not response:
        return None
    try:
        orjson.loads(response)
    except orjson.JSONDecodeError:
        return {"base64": base64.b64encode(response).decode("ascii")}
    return embedded(response)


def job_view(job: Job) -> dict[str, object]:
    """A replay or redrive and how far it is."""
    return {
        "name": job.name,
        "kind": job.kind,
        "state": job.state.value,
        "spec": embedded(job.spec) if job.spec else None,
        "total": job.total,
        "done": job.done,
        "failed": job.failed,
        "skipped": job.skipped,
        "created_at": job.created_at,
        "ended_at": job.ended_at,
        "reason": job.reason,
    }


def lane_view(lane: LaneStatus) -> dict[str, object]:
    """A function's lane."""
    return {
        "function": lane.function,
        "state": lane.state,
        "reason": lane.reason,
        "waiting": lane.waiting,
        "waiting_bytes": lane.waiting_bytes,
        "running": lane.running,
        "parked": lane.parked,
        "oldest_at": lane.oldest_at,
    }


def mapping_view(status: MappingStatus) -> dict[str, object]:
    """An event source mapping in a list: what its shards come to."""
    lags = [shard.behind for shard in status.shards]
    if status.queue is not None:
        lags = [status.queue.facts.visible if status.queue.facts is not None else None]
    known = [lag for lag in lags if lag is not None]
    return {
        "name": status.mapping.name,
        "uuid": status.mapping.uuid,
        "source": status.mapping.source,
        "function": status.mapping.function,
        "state": status.state.value,
        "state_transition_reason": status.reason,
        "last_processing_result": status.result or None,
        "modified_at": status.modified_at,
        "running": status.running,
        "shard_count": len(status.shards),
        "behind": sum(known) if lags and len(known) == len(lags) else status.behind,
        "behind_s": max((shard.behind_s for shard in status.shards if shard.behind_s is not None), default=None),
        "oldest_at": min((at for at in _oldest(status) if at is not None), default=None),
        "blocked": sum(1 for shard in status.shards if shard.attempts)
        + (status.queue is not None and bool(status.queue.attempts)),
    }


def _oldest(status: MappingStatus) -> list[float | None]:
    ages = [shard.oldest_at for shard in status.shards]
    return ages if status.queue is None else [*ages, status.queue.oldest_at]


def whole_mapping(status: MappingStatus) -> dict[str, object]:
    """An event source mapping with its settings and each shard."""
    return mapping_view(status) | {
        "settings": asdict(status.mapping),
        "shards": [_shard_view(shard) for shard in status.shards],
        "queue": None if status.queue is None else _queue_view(status.queue),
    }


def _queue_view(queue: QueueStatus) -> dict[str, object]:
    """A queue: what it says of itself (approximate), and what is ours of it now."""
    facts = queue.facts
    return {
        "arn": facts.arn if facts is not None else "",
        "visible": facts.visible if facts is not None else None,
        "in_flight": facts.in_flight if facts is not None else None,
        "delayed": facts.delayed if facts is not None else None,
        "visibility_timeout_s": facts.visibility_s if facts is not None else None,
        "max_receive_count": facts.max_receive_count if facts is not None else None,
        "dead_letter_arn": facts.dead_letter_arn if facts is not None else "",
        "waiting": queue.waiting,
        "running": queue.running,
        "settling": queue.settling,
        "attempts": queue.attempts,
        "due_at": queue.due_at,
        "reason": queue.reason,
        "failure": queue.failure,
        "notes": list(queue.notes),
    }


def _shard_view(shard: ShardStatus) -> dict[str, object]:
    return {
        "shard": shard.shard,
        "position": position_view(shard.position),
        "behind": shard.behind,
        "behind_s": shard.behind_s,
        "buffered": shard.buffered,
        "oldest_at": shard.oldest_at,
        "running": shard.running,
        "attempts": shard.attempts,
        "due_at": shard.due_at,
        "reason": shard.reason,
    }


def position_view(position: Position) -> int | str:
    """A place in a shard: a number, or its digits where a number would lose some (Kinesis)."""
    return position if abs(position) <= _EXACT_MAX else str(position)

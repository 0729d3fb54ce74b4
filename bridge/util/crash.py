"""Named points at which a test may end the process at once, as kill -9 would (FoundationDB's BUGGIFY, by name)."""

import os

_step, _, _count = os.environ.get("BRIDGE_CRASH_AT", "").partition(":")
_left = int(_count or 1)


def crash_point(step: str) -> None:
    """End the process with status 137 if BRIDGE_CRASH_AT names `step` (`step:N`: at its N-th pass).

    Steps: `journal.written` (after write, before fsync), `intake.committed` (after commit, before 202),
    `delivery.handled` (after the handler, before the outcome), `delivery.recorded` (the record of a success is
    durable, its outcome not), `delivery.dead_letter` (after the dead letter, before the parked row goes),
    `outbox.sent` (targets have what was sent, the outbox does not know). Of mappings: `stream.assigned` (shards
    taken over, nothing begun), `stream.handled` (after the handler, before anything counts), `stream.dead_letter`
    (durable, its records still open), `stream.committing` (finished, the mark not stored), `stream.committed`
    (stored), `stream.revoked` (committed in a rebalance, the shards still ours). Of queues: `queue.received` (ours,
    nothing begun), `queue.handled` (after the handler, nothing archived), `queue.archived` (copied, not deleted),
    `queue.deleted` (deleted, not counted). Of schedules: `schedule.claimed` (the tick is claimed, its event not
    stored), `schedule.stored` (stored, the tick not noted as passed). Of MQTT: `mqtt.stored` (stored, no PUBACK sent).
    Of `keys rotate`: `keys.written` (the key file is changed, not synced), `keys.added` (the new key is in it, nothing
    is wrapped by it), `keys.rewrapped` (a function's values are), `keys.dropped` (the old keys are gone).
    """
    global _left  # noqa: PLW0603 - one counter a process, by design
    if step != _step:
        return
    _left -= 1
    if _left <= 0:
        os._exit(137)

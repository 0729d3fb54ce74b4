"""Takes over what came of a batch: its records are finished, or stand at the front of their lanes again."""

from collections.abc import Callable

from bridge.core.stream import Position
from bridge.pipeline.streams.batch import Batch, Part, partition
from bridge.pipeline.streams.block import Step
from bridge.pipeline.streams.lane import Lane
from bridge.pipeline.streams.track import Piece

Home = Callable[[Lane, Batch], Lane | None]
"""The lane that a batch's outcome counts for: its own, the one that adopted it, or none."""


def settle(batch: Batch, step: Step, *, now: float, wall: float, home: Home) -> tuple[int, int]:
    """Do what `step` says; its discards are durable already. Returns how many records were handled and discarded.

    Args:
        batch: what was tried.
        step: what follows.
        now: monotonic time, from which waits count.
        wall: wall clock.
        home: see `Home`.
    """
    for each in step.follow:
        tries = each.tries
        tries.due_at = wall + tries.delay_s
        each.due = now + tries.delay_s
        each.is_due_known = True
    handled = discarded = 0
    for part in batch.parts:
        done = [piece for each in step.finished if each.lane is part.lane for piece in each.pieces]
        given_up = [
            piece
            for discard in step.discards
            for each in discard.batch.parts
            if each.lane is part.lane
            for piece in each.pieces
        ]
        follow = [each for each in step.follow if each.parts[0].lane is part.lane]
        lane = home(part.lane, batch)
        if lane is None:
            continue
        handled += sum(map(len, done))
        discarded += sum(map(len, given_up))
        if lane is part.lane:
            lane.busy = None
            lane.shard.finish([*done, *given_up])
            lane.pending.extendleft(reversed(follow))
        else:
            _settle_adopted(lane, [*done, *given_up], follow)
        lane.window_from = now
        if lane.queue and lane.first_at is not None:
            lane.first_at = now
    return handled, discarded


def _settle_adopted(lane: Lane, done: list[Piece], follow: list[Batch]) -> None:
    """The batch was begun before its shard went and came back: say it in terms of what was read since."""
    ended: set[Position] = {piece.track.chunk.positions[index] for piece in done for index in piece.indexes}
    again, held = lane.release()
    finished, left = partition(again, lambda chunk, index: chunk.positions[index] in ended)
    lane.shard.finish(finished)
    seen = {piece.track.chunk.positions[index] for piece in again for index in piece.indexes}
    lane.shard.skip(sorted((ended & held) - seen))
    if left:
        first = follow[0] if follow else None
        batch = Batch(parts=[Part(lane=lane, pieces=left)], is_due_known=True)
        if first is not None:
            batch.tries, batch.due = first.tries, first.due
        lane.pending.appendleft(batch)

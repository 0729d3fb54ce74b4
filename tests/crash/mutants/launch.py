"""Runs the daemon with a planted fault: launch.py MUTANT ARGUMENTS of bridge …

Each fault is a mistake that daemons of this kind have really made; the crash tests must catch every one.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

DELAY_S = 0.25
_tasks: set["asyncio.Task[object]"] = set()


def later(work: Callable[[], object]) -> None:
    """Do what should have been awaited some time later, in the background."""

    async def run() -> None:
        await asyncio.sleep(DELAY_S)
        await work()

    task = asyncio.create_task(run())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def none() -> None:
    """No fault: the same launcher, for comparison."""


def acknowledge_before_commit() -> None:
    """The sender gets its 202 while the event is still on its way to the disk."""
    from bridge.pipeline.intake import JournalIntake

    store = JournalIntake._store

    async def stored_later(self, record):
        later(lambda: store(self, record))
        return record

    JournalIntake._store = stored_later


def drop_on_full_queue() -> None:
    """A full lane swallows the event instead of pushing back."""
    from bridge.core.errors import LaneFull
    from bridge.core.ports import Receipt
    from bridge.pipeline.intake import JournalIntake
    from bridge.pipeline.lanes import Lane

    submit, begin = JournalIntake.submit, Lane.__init__

    def small(self, *arguments, **options):
        begin(self, *arguments, **options | {"events_max": 2})

    async def dropping(self, record, *, deduplicate_s=0.0):
        try:
            return await submit(self, record, deduplicate_s=deduplicate_s)
        except LaneFull:
            return Receipt(id=record.id)

    JournalIntake.submit, Lane.__init__ = dropping, small


def dead_letter_not_awaited() -> None:
    """The parked row goes while the dead letter is still on its way to the disk."""
    from bridge.destinations.spill import Spill

    send = Spill.send

    async def sent_later(self, letter):
        later(lambda: send(self, letter))

    Spill.send = sent_later


MUTANTS = {f.__name__: f for f in (none, acknowledge_before_commit, drop_on_full_queue, dead_letter_not_awaited)}

if __name__ == "__main__":
    MUTANTS[sys.argv[1]]()
    sys.argv = ["bridge", *sys.argv[2:]]

    from bridge.cli.main import main

    main()

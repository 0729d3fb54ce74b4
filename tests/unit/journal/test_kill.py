"""A kill -9 at any moment: every event whose append returned is there, in order."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bridge.journal.journal import SegmentJournal
from tests.unit.journal.support import everything, opened

APPENDER = """
import asyncio, os, sys, uuid
from pathlib import Path
from bridge.core.invocation import InvocationType
from bridge.core.record import Record
from bridge.journal.journal import SegmentJournal

async def go_on(journal):
    while True:
        size = int.from_bytes(os.urandom(2), "little") % 3000
        stored = await journal.append(Record(
            id=str(uuid.uuid4()), source="s", function="f", invocation_type=InvocationType.EVENT,
            received_at=1.0, payload=bytes(size),
        ))
        os.write(1, f"{stored.position} {stored.id}\\n".encode())

async def main():
    journal = SegmentJournal(folder=Path(sys.argv[1]), segment_bytes=65_536, on_fatal=print)
    await journal.open()
    os.write(1, b"opened\\n")
    await asyncio.gather(*(go_on(journal) for _ in range(8)))

asyncio.run(main())
"""


def killed_after(folder: Path, told: int, delay_s: float) -> list[tuple[int, str]]:
    """Positions and ids that a process was told are stored, before it was killed: `told` of them, and what follows."""
    with subprocess.Popen([sys.executable, "-c", APPENDER, str(folder)], stdout=subprocess.PIPE) as appender:
        assert appender.stdout is not None
        for line in appender.stdout:  # it may log first that it cut a torn tail
            if line == b"opened\n":
                break
        text = b"".join(appender.stdout.readline() for _ in range(told))
        time.sleep(delay_s)
        appender.kill()
        lines = (text + appender.stdout.read()).decode().splitlines(keepends=True)
    assert appender.returncode == -signal.SIGKILL
    # The pipe may end within a line: that one was not told.
    return [(int(position), name) for position, name in (line.split() for line in lines if line.endswith("\n"))]


async def stored_in(journal: SegmentJournal) -> list[tuple[int, str]]:
    return [(each.position, each.id) for each in await everything(journal)]


@pytest.mark.slow
async def test_what_was_acknowledged_before_a_kill_is_there_in_order(tmp_path):
    folder, chance, told = tmp_path / "journal", random.Random(), list[tuple[int, str]]()
    for _ in range(10):
        told += killed_after(folder, chance.randint(10, 30), chance.uniform(0.0, 0.02))
    async with opened(folder, segment_bytes=65_536) as journal:
        stored = await stored_in(journal)
        assert stored == sorted(stored)
        assert len({position for position, _ in stored}) == len(stored)
        acknowledged = set(told)
        assert told == [each for each in stored if each in acknowledged]
        assert len(told) >= 100
        assert len(journal.segments) > 1
        lane = [position for position, _ in journal.positions("f", after=-1, limit=1_000_000)]
        assert lane == [position for position, _ in stored]

"""Parked events and dead letters beside a model in two dicts, through redrives, purges and restarts."""

import asyncio
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridge.core.invocation import DeadLetter
from bridge.core.ports import DeadLetterSelection
from bridge.core.record import Parked
from bridge.store.state import State, open_state
from tests.contract.stores import LARGE, NOW, letter, parked, record, uuid_of

NUMBERS = st.integers(1, 4)
QUEUES = st.sampled_from(["default", "replay:r"])
PAYLOADS = st.sampled_from([b"small", LARGE])
EVERYTHING = DeadLetterSelection(queue=None)


class StoresBesideAModel(RuleBasedStateMachine):
    """Every rule does to the model what the ports' docstrings say; the invariant compares all there is."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="bridge-model-"))
        self.loop = asyncio.new_event_loop()
        self.state: State = self.run(open_state(self.folder))
        self.parked: dict[tuple[str, str], Parked] = {}
        self.letters: dict[tuple[str, str], DeadLetter] = {}
        self.now = NOW

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def tick(self) -> float:
        self.now += 1
        return self.now

    @rule(number=NUMBERS, queue=QUEUES, payload=PAYLOADS)
    def park(self, number: int, queue: str, payload: bytes) -> None:
        entry = parked(number, event=record(number, payload=payload), queue=queue, due_at=self.tick())
        self.run(self.state.parked.park(entry))
        self.parked[queue, uuid_of(number)] = entry

    @rule(number=NUMBERS, queue=QUEUES, stale=st.booleans())
    def done(self, number: int, queue: str, stale: bool) -> None:
        entry = self.parked.get((queue, uuid_of(number)), parked(number, queue=queue))
        self.run(self.state.parked.done(replace(entry, due_at=entry.due_at - stale, attempts=7)))
        if not stale:
            self.parked.pop((queue, uuid_of(number)), None)

    @rule(number=NUMBERS, queue=QUEUES, payload=PAYLOADS)
    def put(self, number: int, queue: str, payload: bytes) -> None:
        dead = letter(number, queue=queue, payload=payload, dead_at=self.tick())
        self.run(self.state.dead_letters.put(dead))
        self.letters[queue, dead.id] = dead
        self.parked.pop((queue, dead.id), None)

    @rule(number=NUMBERS, queue=QUEUES)
    def redrive(self, number: int, queue: str) -> None:
        known = self.letters.get((queue, uuid_of(number)))
        wanted = known or letter(number, queue=queue)
        entry = parked(
            number, event=record(number, payload=wanted.payload), queue=queue, redrive=True, due_at=self.tick()
        )
        redriven = self.run(self.state.dead_letters.redrive(wanted, entry))

        assert redriven is (known is not None and known.state == "dead")
        if redriven and known is not None:
            self.letters[queue, known.id] = replace(known, state="redriving", redrives=known.redrives + 1)
            self.parked[queue, known.id] = entry

    @rule(number=NUMBERS, queue=QUEUES)
    def resolve(self, number: int, queue: str) -> None:
        self.run(self.state.dead_letters.resolve(uuid_of(number), queue=queue))
        self.letters.pop((queue, uuid_of(number)), None)

    @rule(queue=st.none() | QUEUES)
    def purge(self, queue: str | None) -> None:
        gone = [key for key, each in self.letters.items() if queue in (None, key[0]) and each.state == "dead"]

        assert len(gone) == self.run(self.state.dead_letters.purge(DeadLetterSelection(queue=queue)))
        for key in gone:
            del self.letters[key]

    @precondition(lambda self: self.parked or self.letters)
    @rule()
    def restart(self) -> None:
        self.run(self.state.close())
        self.state = self.run(open_state(self.folder))

    @invariant()
    def both_hold_the_same(self) -> None:
        entries = self.run(self.state.parked.due("billing", now=self.now, limit=100))
        letters = self.run(self.state.dead_letters.select(EVERYTHING, limit=100))

        assert sorted(self.parked.values(), key=lambda entry: entry.due_at) == entries
        assert sorted(self.letters.values(), key=lambda each: each.dead_at) == letters
        large = [
            each for each in (*(e.record.payload for e in entries), *(x.payload for x in letters)) if each == LARGE
        ]
        assert len(large) == len(list((self.folder / "hold").glob("*.payload")))

    def teardown(self) -> None:
        self.run(self.state.close())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.folder)


StoresBesideAModel.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.slow
class TestStoresBesideAModel(StoresBesideAModel.TestCase):
    """Run by unittest's runner inside pytest."""

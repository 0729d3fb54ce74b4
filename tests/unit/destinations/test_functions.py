"""A function of this daemon as a target."""

import pytest

from bridge.core import limits
from bridge.core.errors import FunctionNotFound, LaneFull
from bridge.core.function import function_arn
from bridge.core.outcome import RecordRefused, TargetTrouble
from bridge.core.ports import Receipt
from bridge.destinations.functions import FunctionTarget
from bridge.events.outcomes import success_record, told_by
from bridge.registry.recursion import ALLOW, Recursion
from bridge.testing.clock import ManualClock
from tests.documents import MemoryDocuments
from tests.unit.destinations.test_aws import RECORD, entry


class Intake:
    """Keeps what it is given; `fail_with` refuses it."""

    def __init__(self) -> None:
        self.submitted: list = []
        self.fail_with: Exception | None = None

    async def submit(self, record, *, deduplicate_s=0.0):
        if self.fail_with is not None:
            raise self.fail_with
        self.submitted.append((record, deduplicate_s))
        return Receipt(id=record.id)


def target(intake: Intake, *, bytes_max: int = 100_000) -> FunctionTarget:
    return FunctionTarget(
        "other:live", name="other", intake=intake, clock=ManualClock(), daemon="d", bytes_max=bytes_max
    )


async def test_the_record_is_an_event_and_once_however_often_it_is_sent():
    intake = Intake()
    await target(intake).send(entry(), None)
    await target(intake).send(entry(), None)

    (first, window_s), (second, _) = intake.submitted
    assert (first.function, first.source, first.payload, window_s) == ("other:live", "destination", RECORD, 300.0)
    assert first.delivery_id == second.delivery_id
    await target(intake).send(entry(created_at=5.0), None)
    assert intake.submitted[2][0].delivery_id != first.delivery_id


@pytest.mark.parametrize("error", [FunctionNotFound("gone"), LaneFull("full")])
async def test_a_function_without_room_is_trouble_that_may_end(error):
    intake = Intake()
    intake.fail_with = error

    with pytest.raises(TargetTrouble, match="function other:live"):
        await target(intake).send(entry(), None)


def loop(times: int) -> bytes:
    """Return what `other` returned for what `first` returned for what `other` returned…, so often."""
    record = b'{"body":"hello"}'
    for _ in range(times):
        for name in ("first", "other"):
            record = success_record(
                request_id="r", function_arn=f"arn:aws:lambda:us-east-1:123456789012:function:{name}:$LATEST", attempts=1,
                payload=record, version="$LATEST", response=b"1", time=1.0,
            )  # fmt: skip
    return record


@pytest.mark.parametrize("is_pointer", [False, True])
async def test_functions_that_tell_each_other_stop_after_as_many_times_as_on_aws(is_pointer):
    intake = Intake()
    await target(intake).send(entry(record=loop(limits.RECURSION_MAX - 1)), None)

    with pytest.raises(RecordRefused, match="function other comes 16 times in what led to this record"):
        await target(intake).send(entry(record=loop(limits.RECURSION_MAX), is_pointer=is_pointer), None)

    assert len(intake.submitted) == 1


async def test_what_leads_to_a_pointer_is_counted_through_it():
    intake = Intake()
    await target(intake).send(entry(record=loop(10), is_pointer=True), None)
    pointer = intake.submitted[0][0].payload

    assert told_by(pointer) == {"first": 10, "other": 10}
    assert told_by(b'{"requestContext":{"functionArn":"arn"}}') == told_by(b"[1]") == told_by(b"no json") == {}


async def test_a_record_above_the_limit_of_events_is_refused():
    with pytest.raises(RecordRefused):
        await target(Intake(), bytes_max=10).send(entry(), None)


async def test_a_chain_goes_on_through_a_destination_and_one_that_is_allowed_has_no_end():
    recursion = Recursion(MemoryDocuments(), arn_of=function_arn)
    intake, header = Intake(), ""

    def made():
        return FunctionTarget(
            "other:live", name="other", intake=intake, clock=ManualClock(), daemon="d", bytes_max=100_000,
            loops=recursion, trace=lambda _entry, _letter: header,
        )  # fmt: skip

    for _ in range(limits.RECURSION_MAX):
        await made().send(entry(), None)
        header = recursion.trace(intake.submitted[-1][0].id, "other", now=0.0)
    with pytest.raises(RecordRefused, match="other was invoked 16 times in this chain"):
        await made().send(entry(), None)
    await recursion.set_mode("other", ALLOW)
    await made().send(entry(record=loop(limits.RECURSION_MAX)), None)
    assert len(intake.submitted) == limits.RECURSION_MAX + 1

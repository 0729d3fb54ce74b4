"""What event sources promise, as far as one shard can show it: for services whose emulators have no more."""

import inspect
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from tests.contract import test_source as suite
from tests.contract.sources import OF_ONE_SHARD, MakeStream, Subject
from tests.contract.test_source import aws_clients, make_stream

__all__ = ["aws_clients", "make_stream"]

PROOFS = [
    suite.test_records_that_arrive_later_come_too,
    suite.test_columns_are_what_was_sent_and_fragments_make_an_event,
    suite.test_a_record_larger_than_what_was_asked_for_comes_all_the_same,
    suite.test_a_read_without_records_ends_after_its_wait,
    suite.test_a_read_with_records_does_not_wait,
    suite.test_a_shard_that_is_paused_in_the_middle_goes_on_where_it_stopped,
    suite.test_marks_of_an_old_epoch_and_of_other_shards_are_ignored,
    suite.test_a_mark_never_moves_back_and_twice_is_fine,
    suite.test_closing_revokes_first_and_what_is_committed_then_is_stored,
    suite.test_after_closing_nothing_is_read_or_committed,
    suite.test_a_range_by_time,
    suite.test_a_range_leaves_the_live_marks_alone,
    suite.test_reset_to_a_time,
    suite.test_nobody_else_consumes,
]


@pytest.fixture(scope="session", params=OF_ONE_SHARD)
def subject(request: pytest.FixtureRequest) -> Subject:
    """Return each implementation in turn, with what it needs started."""
    implementation = cast("Subject", request.param)
    for name in implementation.needs:
        request.getfixturevalue(name)
    return implementation


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.__name__.removeprefix("test_"))
async def test_it_holds_for_one_shard(
    proof: Callable[..., Awaitable[None]], make_stream: MakeStream, subject: Subject
) -> None:
    """Run one of the suite's tests."""
    wanted = {"make_stream": make_stream, "subject": subject}

    await proof(**{name: wanted[name] for name in inspect.signature(proof).parameters})

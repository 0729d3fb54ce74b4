"""A cursor that retention has overtaken goes on behind what was handed out."""

from types import SimpleNamespace

import pytest

from bridge.sources.pull.shard_api import OLDEST, Page, ReadLimits
from bridge.sources.pull.shard_cursor import ShardCursor

LIMITS = ReadLimits(records_max=10, call_s=0.0, idle_s=0.0, bytes_per_s=0.0, iterator_max_s=60.0)


def page(*numbers: int) -> Page:
    return Page(records=[{"n": number} for number in numbers], iterator="next", behind_s=None, size=len(numbers))


@pytest.fixture
def cursor():
    api = SimpleNamespace(
        limits=LIMITS,
        position=lambda record: record["n"],
        size=lambda record: 1,
        chunk=lambda shard, records, *, through: [record["n"] for record in records],
    )
    return ShardCursor(name="shard", api=api, start=OLDEST, through=-1)


def taken(cursor):
    return cursor.take(records_max=10, bytes_max=100, is_first=True)[0]


def test_what_was_handed_out_before_a_trim_is_not_handed_out_again(cursor) -> None:
    cursor.arrived(page(1, 2, 3), now=0.0)
    before = taken(cursor)

    cursor.trimmed()
    cursor.arrived(page(1, 2), now=1.0)  # a service that has kept more than it said
    nothing = taken(cursor)
    cursor.arrived(page(3, 4, 5), now=2.0)

    assert [before, nothing, taken(cursor)] == [[1, 2, 3], None, [4, 5]]


def test_what_follows_a_trim_is_read_on_as_ever(cursor) -> None:
    cursor.arrived(page(1, 2), now=0.0)
    taken(cursor)

    cursor.trimmed()
    cursor.arrived(page(7, 8), now=1.0)
    first = taken(cursor)
    cursor.arrived(page(9), now=2.0)

    assert [first, taken(cursor)] == [[7, 8], [9]]
    assert cursor.next_start.after == 9

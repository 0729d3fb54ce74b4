"""ParsedRecords against aiokafka's own PartitionRecords: the same records, and the same offset after each."""

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c_py
from hypothesis import given
from hypothesis import strategies as st

from bridge.sources.pull.kafka_records import ParsedRecords

PARTITION = TopicPartition("orders", 3)
ABORT, COMMIT = b"\x00\x00\x00\x00", b"\x00\x00\x00\x01"


def batch(offset, count, *, producer=-1, transactional=False, codec=0):
    builder = DefaultRecordBatchBuilder(2, codec, int(transactional), producer, 0, 0, 1 << 20)
    for number in range(count):
        builder.append(number, 1000 + number, b"k%d" % number, b"v" * number, [("h", b"\xff")] * (number % 2))
    return _at(builder.build(), offset)


def marker(offset, producer, kind):
    builder = DefaultRecordBatchBuilder(2, 0, 1, producer, 0, 0, 1 << 20)
    builder.append(0, 1000, kind, b"\x00" * 6, [])
    data = builder.build()
    data[22] |= 0x20  # the control bit of the attributes
    return _at(data, offset, sign=True)


def legacy(offset, count, *, codec=0):
    builder = LegacyRecordBatchBuilder(1, codec, 1 << 20)
    for number in range(count):
        builder.append(offset + number, timestamp=1000, key=b"k", value=b"v%d" % number)
    return bytes(builder.build())


def _at(data, offset, *, sign=False):
    data = bytearray(data)
    data[0:8] = offset.to_bytes(8, "big")
    if sign:
        data[17:21] = calc_crc32c_py(bytes(data[21:])).to_bytes(4, "big")
    return bytes(data)


def plain(data, *, at=0, aborted=(), level=READ_UNCOMMITTED):
    return PartitionRecords(PARTITION, MemoryRecords(data), list(aborted), at, None, None, True, level)


def walk(records):
    yield records.next_fetch_offset
    for record in records:
        yield record.offset, record.timestamp, record.timestamp_type, record.key, record.value, tuple(record.headers)
        yield records.next_fetch_offset
    yield records.next_fetch_offset


def seen(data, **settings):
    found = list(walk(ParsedRecords(plain(data, **settings))))

    assert list(walk(plain(data, **settings))) == found
    return [each[0] for each in found if isinstance(each, tuple)]


@given(
    batches=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.sampled_from([0, 1])), max_size=5),
    at=st.integers(0, 12),
)
def test_records_and_offsets_are_those_of_aiokafka(batches, at):
    data, offset = b"", 0
    for gap, count, codec in batches:
        offset += gap
        data += batch(offset, count, codec=codec)
        offset += count

    seen(data, at=at)


def test_what_lies_before_the_position_is_passed_over():
    assert seen(batch(0, 5) + batch(5, 2), at=3) == [3, 4, 5, 6]


@pytest.mark.parametrize(("codec", "at", "expected"), [(0, 0, [0, 1, 2, 3, 4, 5]), (1, 2, [2, 3, 4, 5])])
def test_old_formats_are_read_as_aiokafka_reads_them(codec, at, expected):
    assert seen(legacy(0, 4, codec=codec) + legacy(4, 2), at=at) == expected


@pytest.mark.parametrize(("level", "expected"), [(READ_UNCOMMITTED, [0, 1, 3, 4, 6]), (READ_COMMITTED, [3, 4, 6])])
def test_aborted_transactions_and_markers_are_left_out(level, expected):
    data = (
        batch(0, 2, producer=7, transactional=True) + marker(2, 7, ABORT)
        + batch(3, 2, producer=7, transactional=True) + marker(5, 7, COMMIT) + batch(6, 1) + marker(7, 8, COMMIT)
    )  # fmt: skip

    assert seen(data, aborted=[(7, 0)], level=level) == expected
    parsed = ParsedRecords(plain(data, aborted=[(7, 0)], level=level))
    list(parsed)
    assert parsed.next_fetch_offset == 8


def test_an_iteration_goes_on_where_the_last_one_was_left():
    records = ParsedRecords(plain(batch(0, 3) + batch(3, 3)))
    for record in records:
        if record.offset == 1:
            break

    assert records.next_fetch_offset == 2
    assert [record.offset for record in records] == [2, 3, 4, 5]
    assert list(records) == []


def test_a_damaged_batch_is_refused_behind_the_good_ones():
    records = ParsedRecords(plain(batch(0, 2) + batch(2, 2)[:-1] + b"?"))
    found = []

    with pytest.raises(CorruptRecordException):
        found.extend(record.offset for record in records)

    assert records.next_fetch_offset == 2

"""The event of a push source read as a stream: original bytes, our members behind them."""

import json

import orjson
import pytest

from bridge.core.sources import WindowPart
from bridge.core.stream import Chunk
from bridge.events.streams import RecordsShape, record_json, shard_name

SHAPE = RecordsShape("sensors", region="eu-west-1", account_id="123456789012")
SHARD = shard_name(3)
TAIL = SHAPE.record_tail(SHARD)
ID = "00000000-0000-4000-8000-000000000001"
OURS = {
    "eventSource": "bridge:webhook",
    "eventSourceARN": "arn:bridge:webhook:eu-west-1:123456789012:sensors",
    "shardId": "shardId-000000000003",
    "eventID": ID,
}


def test_a_record_is_the_events_own_bytes_and_ours_behind_them():
    payload = b'{"version":"2.0","n":1e3,"big":12345678901234567890123,"body":"{\\"a\\":1}"}'

    record = record_json(payload, TAIL, ID)

    assert record.startswith(payload[:-1] + b',"eventSource":"bridge:webhook",')
    assert json.loads(record) == json.loads(payload) | OURS


@pytest.mark.parametrize(
    ("payload", "members"),
    [
        (b"{}", {}),
        (b"{ }", {}),
        (b"{" + b" " * 1000 + b"}", {}),
        (b' \n{"a":1} \n', {"a": 1}),
        (b'{ "a" : 1 }', {"a": 1}),
        (b"[1,2]", {"body": [1, 2]}),
        (b'"}"', {"body": "}"}),
        (b"5", {"body": 5}),
        (b"", {"body": None}),
    ],
)
def test_whatever_json_the_event_is_the_record_is_an_object(payload, members):
    assert json.loads(record_json(payload, TAIL, ID)) == members | OURS


def test_where_the_event_has_such_members_ours_count():
    assert json.loads(record_json(b'{"eventID":"theirs"}', TAIL, ID))["eventID"] == ID


def chunk(count=2):
    ids = [f"00000000-0000-4000-8000-{n:012x}" for n in range(count)]
    return Chunk(
        shard=SHARD,
        positions=list(range(count)),
        times_ms=[1_767_225_600_000 + n for n in range(count)],
        keys=[None] * count,
        values=[b"{}"] * count,
        fragments=[record_json(b'{"n":%d}' % n, TAIL, ids[n]) for n in range(count)],
        through=count,
    )


def test_the_event_holds_the_records_and_weighs_what_it_says():
    found = chunk(3)
    event = SHAPE.event([(SHARD, found.fragments)])

    assert [record["n"] for record in orjson.loads(event)["Records"]] == [0, 1, 2]
    assert list(orjson.loads(event)) == ["Records"]
    assert len(event) <= SHAPE.overhead_bytes + sum(map(len, found.fragments)) + 2


@pytest.mark.parametrize("records", [0, 2])
def test_a_window_stands_beside_the_records(records):
    window = WindowPart(
        start=1_767_225_600.0, end=1_767_225_720.0, state=b'{"sum":1.50}', is_final=True, is_terminated_early=False
    )
    event = SHAPE.event([(SHARD, chunk(records).fragments)], window)
    parsed = orjson.loads(event)

    assert len(parsed.pop("Records")) == records
    assert parsed == {
        "window": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:02:00Z"},
        "state": {"sum": 1.5},
        "shardId": SHARD,
        "eventSourceARN": SHAPE.arn,
        "isFinalInvokeForWindow": True,
        "isWindowTerminatedEarly": False,
    }
    assert b'"state":{"sum":1.50}' in event
    assert len(event) <= SHAPE.overhead_bytes + sum(map(len, chunk(records).fragments)) + 1 + len(window.state)


def test_item_identifiers_are_the_ids_of_the_records():
    found = chunk(2)

    assert [SHAPE.identifier(found, n) for n in range(2)] == [
        "00000000-0000-4000-8000-000000000000",
        "00000000-0000-4000-8000-000000000001",
    ]
    assert SHAPE.read_identifier(ID) == ID
    assert [SHAPE.read_identifier(item) for item in ("", None, 5, {}, [])] == [None] * 5


def test_batch_info_is_that_of_kinesis_under_our_name():
    assert SHAPE.batch_info(SHARD, [5, 1 << 40], [1_767_225_600_123, 1_767_225_601_000], payload_bytes=7) == {
        "BridgeBatchInfo": {
            "shardId": SHARD,
            "startSequenceNumber": "5",
            "endSequenceNumber": "1099511627776",
            "approximateArrivalOfFirstRecord": "2026-01-01T00:00:00.123Z",
            "approximateArrivalOfLastRecord": "2026-01-01T00:00:01.000Z",
            "batchSize": 2,
            "streamArn": SHAPE.arn,
        }
    }

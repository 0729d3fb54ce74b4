"""Putting records into an embedded stream."""

import base64

import pytest

from bridge.core.errors import LaneFull, StoreFull
from bridge.core.stream import PutRecord
from tests.unit.api.harness import World


@pytest.fixture
async def world():
    made = World()
    yield made
    await made.close()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def test_records_are_stored_in_order_and_their_positions_told(world):
    answer = await world.post(
        "/streams/clicks/records",
        {
            "records": [
                {
                    "key": encoded(b"k\xff"),
                    "value": encoded(b"v1"),
                    "headers": [{"h": [0, -1, 255]}, {"h": None}],
                    "timestamp": 1234,
                },
                {"value": None},
                {"key": None, "value": "", "headers": [], "timestamp": None},
            ]
        },
    )

    assert (answer.status, answer.json()) == (200, {"positions": [0, 1, 2]})
    assert world.streams.records == [
        PutRecord(key=b"k\xff", value=b"v1", headers=(("h", b"\x00\xff\xff"), ("h", None)), timestamp_ms=1234),
        PutRecord(value=None),
        PutRecord(value=b""),
    ]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"x", "not JSON"),
        (b"[]", "must be"),
        (b'{"records":5}', "must be"),
        (b'{"records":[],"more":1}', "must be"),
        (b'{"records":[]}', "1 to 10000"),
        (b'{"records":[5]}', r"records\[0\]: must be an object with value"),
        (b'{"records":[{"key":null}]}', r"records\[0\]: must be an object with value"),
        (b'{"records":[{"value":null},{"value":null,"x":1}]}', r"records\[1\]: must be an object"),
        (b'{"records":[{"value":"*"}]}', r"records\[0\].value: must be base64"),
        (b'{"records":[{"value":5}]}', r"records\[0\].value: must be base64"),
        (b'{"records":[{"value":null,"key":"*"}]}', r"records\[0\].key: must be base64"),
        (b'{"records":[{"value":null,"timestamp":-1}]}', r"records\[0\].timestamp"),
        (b'{"records":[{"value":null,"timestamp":true}]}', r"records\[0\].timestamp"),
        (b'{"records":[{"value":null,"headers":{"a":"b"}}]}', r"records\[0\].headers"),
        (b'{"records":[{"value":null,"headers":[{"a":[256]}]}]}', r"records\[0\].headers"),
        (b'{"records":[{"value":null,"headers":[{"a":"text"}]}]}', r"records\[0\].headers"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_stored(world, body, text):
    answer = await world.post("/streams/clicks/records", body)

    assert answer.status == 400
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(answer.error)
    assert world.streams.records == []


@pytest.mark.parametrize(("error", "status"), [(LaneFull("mapping m has 5 events"), 503), (StoreFull("no space"), 503)])
async def test_no_room_is_said_to_come_later(world, error, status):
    world.streams.fail_with = [error]
    answer = await world.post("/streams/clicks/records", {"records": [{"value": None}]})

    assert (answer.status, answer.headers["retry-after"], answer.error) == (status, "1", str(error))


async def test_a_stream_that_no_mapping_reads_is_not_found(world):
    answer = await world.post("/streams/others/records", {"records": [{"value": None}]})

    assert (answer.status, answer.error) == (404, "no mapping reads local://others")


async def test_it_asks_for_the_token_and_for_post(world):
    assert (await world.post("/streams/clicks/records", b"{}", token=None)).status == 401
    assert (await world.get("/streams/clicks/records")).status == 405

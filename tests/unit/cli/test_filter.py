"""`bridge filter` and `bridge generate-event`."""

import base64
import json

import pytest

from bridge.events.kafka import parse_event
from bridge.pipeline.filters import compile_pattern

PATTERN = '{"type": ["paid"], "n": [{"numeric": [">", 5]}]}'


@pytest.fixture
def event(tmp_path):
    """Write an event and return its file's name."""

    def write(value) -> str:
        (tmp_path / "event.json").write_text(value if isinstance(value, str) else json.dumps(value))
        return "event.json"

    return write


def base64_of(value) -> str:
    return base64.b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).decode()


def kafka(*values):
    return {
        "eventSource": "aws:kafka",
        "records": {"orders-0": [{"topic": "orders", "key": None, "value": base64_of(value)} for value in values]},
    }


def test_a_match_is_told_field_by_field(alone, event):
    found = alone("filter", PATTERN, "--event", event({"type": "paid", "n": 7}))

    assert (0, "") == (found.code, found.err)
    assert [
        "match",
        "     FIELD  WANTED                   FOUND",
        'yes  n      [{"numeric": [">", 5]}]  7',
        'yes  type   ["paid"]                 "paid"',
    ] == found.out.splitlines()


def test_no_match_says_what_was_found(alone, event):
    found = alone("filter", PATTERN, "--event", event({"type": "open\x1b[2J", "m": 7}))

    assert 1 == found.code
    assert [
        "no match",
        "    FIELD  WANTED                   FOUND",
        'no  n      [{"numeric": [">", 5]}]  nothing',
        'no  type   ["paid"]                 "open\\u001b[2J"',
    ] == found.out.splitlines()


def test_alternatives_are_numbered_and_notes_shown(alone, event):
    either = alone("filter", '{"$or": [{"a": [1]}, {"b": [1]}]}', "--event", event({"b": 1}))
    apart = alone("filter", '{"a": {"b": [1], "c": [2]}}', "--event", event({"a": [{"b": 1}, {"c": 2}]}))

    assert (0, "ALTERNATIVE") == (either.code, either.out.splitlines()[1].split()[0])
    assert [["1", "no", "a"], ["2", "yes", "b"]] == [line.split()[:3] for line in either.out.splitlines()[2:]]
    assert (1, True) == (apart.code, "not in the same element" in apart.out)


def test_every_record_of_an_event_is_judged_as_its_source_says(alone, event):
    file = event(kafka({"type": "paid", "n": 7}, {"type": "open", "n": 7}, b"plain"))

    found = alone("filter", '{"value": ' + PATTERN + ', "topic": ["orders"]}', "--event", file)

    assert 0 == found.code
    assert ["records.orders-0[0]  match", "records.orders-0[1]  no match", "records.orders-0[2]  match"] == [
        line for line in found.out.splitlines() if line.startswith("records")
    ]
    assert "the value is text, not JSON and the pattern asks for JSON, so this is not judged" in found.out
    assert "2 of 3 records match" == found.out.splitlines()[-1]


def test_source_chooses_how_data_is_read(alone, event):
    file = event({"body": '{"type": "paid"}'})

    as_it_is = alone("filter", '{"body": {"type": ["paid"]}}', "--event", file)
    as_sqs = alone("filter", '{"body": {"type": ["paid"]}}', "--event", file, "--source", "sqs")

    assert (1, True) == (as_it_is.code, "`body` is text in this event; a mapping reads it as JSON" in as_it_is.out)
    assert 0 == as_sqs.code


def test_json_is_one_object_a_record(alone, event):
    found = alone("filter", '{"value": {"n": [1]}}', "--event", event(kafka({"n": 1}, {"n": 2})), "--json")

    first, second = map(json.loads, found.out.splitlines())
    assert ("records.orders-0[0]", True, "") == (first["record"], first["matched"], first["note"])
    assert {"alternative": 0, "path": "value.n", "matched": False, "wanted": "[1]", "found": ["2"], "note": ""} == (
        second["fields"][0]
    )


def test_pattern_and_event_come_from_files_or_standard_input(alone, event, tmp_path):
    (tmp_path / "pattern.json").write_text('\ufeff{"a": [1]}\n')
    file = event({"a": 1})

    assert 0 == alone("filter", "@pattern.json", "--event", file).code
    assert 0 == alone("filter", "-", "--event", file, stdin='{"a": [1]}').code
    assert 1 == alone("filter", '{"a": [2]}', "--event", "-", stdin='{"a": 1}').code


def test_an_event_without_records(alone, event):
    found = alone("filter", '{"a": [1]}', "--event", event({"Records": []}))

    assert (1, "the event has no records\n") == (found.code, found.out)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["{", "--event", "event.json"], "invalid filter pattern: the pattern is not JSON"),
        (['{"a": 1}', "--event", "event.json"], "invalid filter pattern: a: must be"),
        (['{"data": ["x"]}', "--event", "event.json", "--source", "kinesis"], "data is JSON"),
        (["@missing.json", "--event", "event.json"], "missing.json: No such file"),
        (['{"a": [1]}', "--event", "missing.json"], "missing.json: No such file"),
        (['{"a": [1]}', "--event", "broken.json"], "broken.json: not JSON"),
        (['{"a": [1]}', "--event", "event.json", "--source", "kinesis"], "not a record of kinesis"),
        (['{"a": [1]}', "--event", "event.json", "--source", "x"], "--source"),
        (["-", "--event", "-"], "cannot both be standard input"),
        (['{"a": [1]}'], "--event"),
    ],
)  # fmt: skip
def test_what_is_invalid_exits_2(alone, event, tmp_path, args, says):
    event({"a": 1})
    (tmp_path / "broken.json").write_text("{")

    found = alone("filter", *args)

    assert (2, True, "") == (found.code, says in found.err, found.out), found.err


def test_a_deep_event_is_refused_in_a_line(alone, event):
    found = alone("filter", '{"a": [1]}', "--event", event("[" * 200_000 + "]" * 200_000))

    assert (2, True) == (found.code, "nested too deeply" in found.err)


# --- generate-event ---------------------------------------------------------------------------------------------------


def test_kafka_event_with_every_field_chosen(alone, tmp_path):
    (tmp_path / "value.bin").write_bytes(b"\x00\xff")

    found = alone(
        "generate-event", "kafka", "--topic", "a-b", "--partition", "3", "--offset", "40", "--key", "grün", "--value", "@value.bin",
        "--header", "x=1=2", "--header", "x=@value.bin", "--timestamp", "1545084650987", "--bootstrap-servers", "k:1,l:2",
        "--msk-arn", "arn:aws:kafka:eu-central-1:123456789012:cluster/c/1", "--count", "2",
    )  # fmt: skip

    records = parse_event(found.raw)
    assert [40, 41] == [record.offset for record in records]
    assert ("a-b", 3, 1545084650987, "grün".encode(), b"\x00\xff") == (
        records[0].topic, records[0].partition, records[0].timestamp_ms, records[0].key, records[0].value,
    )  # fmt: skip
    assert (("x", b"1=2"), ("x", b"\x00\xff")) == records[0].headers
    whole = json.loads(found.out)
    assert ("aws:kafka", "k:1,l:2") == (whole["eventSource"], whole["bootstrapServers"])
    assert (1, 0) == (found.raw.count(b"\n"), found.code)


def test_kafka_defaults_make_one_record_with_a_null_key(alone):
    [record] = parse_event(alone("generate-event", "kafka").raw)
    [tombstone] = parse_event(alone("generate-event", "kafka", "--tombstone", "--key", "k").raw)

    assert (None, b'{"id": 1}', ()) == (record.key, record.value, record.headers)
    assert (b"k", None) == (tombstone.key, tombstone.value)


def test_records_are_lines_for_put(alone):
    found = alone("generate-event", "kafka", "--records", "--count", "2", "--key", "k", "--value", '{"a": 1}')

    assert [{"key": "k", "value": {"a": 1}, "headers": {}}] * 2 == [json.loads(line) for line in found.out.splitlines()]


def test_webhook_event_with_every_field_chosen(alone):
    found = alone(
        "generate-event", "webhook", "--method", "put", "--path", "/in", "--body", "-", "--header", "X-A=b", "--query", "q=1",
        "--source-ip", "192.0.2.1", "--timestamp", "1583348638390", "--request-id", "id-1", stdin='{"paid": true}',
    )  # fmt: skip

    made = json.loads(found.out)
    assert ('{"paid": true}', "b", {"q": "1"}) == (made["body"], made["headers"]["x-a"], made["queryStringParameters"])
    context = made["requestContext"]
    assert ("PUT", "/in", "192.0.2.1", "id-1", 1583348638390) == (
        context["http"]["method"], context["http"]["path"], context["http"]["sourceIp"], context["requestId"], context["timeEpoch"],
    )  # fmt: skip


def test_what_is_generated_can_be_filtered(alone):
    made = alone("generate-event", "webhook", "--method", "GET")
    body = alone("generate-event", "webhook").out

    assert "body" not in json.loads(made.out)
    assert compile_pattern('{"version": ["2.0"]}').matches(json.loads(made.out))
    assert 0 == alone("filter", '{"body": {"id": [1]}}', "--event", "-", "--source", "bridge", stdin=body).code


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["kafka", "--value", "x", "--tombstone"], "exclude each other"),
        (["kafka", "--header", "x"], "NAME=VALUE"),
        (["kafka", "--value", "@missing"], "missing: No such file"),
        (["kafka", "--header", "x=@missing"], "missing: No such file"),
        (["kafka", "--timestamp", "soon"], "neither epoch milliseconds nor a time"),
        (["kafka", "--count", "0"], "--count"),
        (["kafka", "--records", "--value", "@odd.bin"], "the value is not UTF-8"),
        (["webhook", "--path", "x"], "begins with /"),
        (["webhook", *["--query", "a=b"] * 300], "query parameters"),
        (["kafka", "--topic", "a\udcff"], "--topic is not UTF-8"),
        (["kafka", "--header", "a\udcff=b"], "--header is not UTF-8"),
        (["webhook", "--header", "a=\udcff"], "--header is not UTF-8"),
        (["ses"], "ses"),
    ],
)
def test_mistakes_of_generate_event(alone, tmp_path, args, says):
    (tmp_path / "odd.bin").write_bytes(b"\xff")

    found = alone("generate-event", *args)

    assert (2, True, "") == (found.code, says in found.err, found.out), found.err

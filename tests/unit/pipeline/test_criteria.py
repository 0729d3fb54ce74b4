"""Filter criteria: what each source's records are asked, what happens to data that does not fit, and what is refused."""

import base64
import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core import limits
from bridge.core.stream import Chunk, RecordFormat
from bridge.pipeline.criteria import PatternInvalid, compile_criteria

KAFKA, KINESIS, DYNAMODB, SQS, BRIDGE = RecordFormat


def never():
    raise AssertionError("the record's own JSON was asked for")


def keeps(record_format, *patterns, key=None, value=None, **document) -> bool:
    """Ask criteria, and hold explain() to the same answer."""
    criteria = compile_criteria([json.dumps(pattern) for pattern in patterns], format=record_format)
    record = {"key": key, "value": value, "document": (lambda: document) if document else never}
    answer = criteria.keeps(**record)

    assert criteria.explain(**record).matched == answer
    return answer


def test_no_filter_keeps_everything():
    assert keeps(KAFKA, value=b"x")


def test_one_of_the_filters_is_enough():
    filters = {"value": {"type": ["paid"]}}, {"value": {"type": ["open"], "n": [1]}}

    assert keeps(KAFKA, *filters, value=b'{"type": "paid"}')
    assert keeps(KAFKA, *filters, value=b'{"type": "open", "n": 1}')
    assert not keeps(KAFKA, *filters, value=b'{"type": "open", "n": 2}')


# --- the table of data that fits and does not -------------------------------------------------------------------------

JSON, TEXT, BYTES = b'{"a": 1, "b": [{"c": 2}]}', b"plain text", b"\xff\xfe"
ASKED = {"json": {"a": [1]}, "other json": {"a": [2]}, "text": ["plain text"], "other text": ["x"]}


@pytest.mark.parametrize(
    ("record_format", "name", "asked", "kept"),
    [
        (KAFKA, "value", "json", {"JSON", "TEXT", "BYTES"}),
        (KAFKA, "value", "other json", {"TEXT", "BYTES"}),
        (KAFKA, "value", "text", {"JSON", "TEXT", "BYTES"}),
        (KAFKA, "value", "other text", {"JSON", "BYTES"}),
        (SQS, "body", "json", {"JSON"}),
        (SQS, "body", "other json", set()),
        (SQS, "body", "text", {"TEXT"}),
        (SQS, "body", "other text", set()),
        (BRIDGE, "body", "json", {"JSON"}),
        (BRIDGE, "body", "text", {"TEXT"}),
        (KINESIS, "data", "json", {"JSON"}),
        (KINESIS, "data", "other json", set()),
    ],
)
def test_check_22_pattern_format_times_data_format(record_format, name, asked, kept):
    data = {"JSON": JSON, "TEXT": TEXT, "BYTES": BYTES}

    assert kept == {kind for kind, raw in data.items() if keeps(record_format, {name: ASKED[asked]}, value=raw)}


@pytest.mark.parametrize("raw", [JSON, TEXT, BYTES])
@pytest.mark.parametrize(("record_format", "field"), [(KAFKA, "topic"), (SQS, "messageId"), (KINESIS, "eventName")])
def test_without_a_pattern_on_the_data_only_metadata_counts(record_format, field, raw):
    assert keeps(record_format, {field: ["x"]}, value=raw, **{field: "x"})
    assert not keeps(record_format, {field: ["x"]}, value=raw, **{field: "y"})


@pytest.mark.parametrize("raw", [TEXT, BYTES])
def test_kafka_data_that_does_not_fit_passes_only_if_the_rest_holds(raw):
    pattern = {"value": {"a": [1]}, "topic": ["orders"]}

    assert keeps(KAFKA, pattern, value=raw, topic="orders")
    assert not keeps(KAFKA, pattern, value=raw, topic="other")
    assert not keeps(SQS, {"body": {"a": [1]}, "messageId": ["m"]}, value=raw, messageId="m")


@pytest.mark.parametrize(
    ("record_format", "pattern"),
    [(KINESIS, {"data": ["x"]}), (KINESIS, {"data": [{"exists": True}]}), (DYNAMODB, {"dynamodb": ["x"]})],
)
def test_streams_refuse_patterns_for_plain_text(record_format, pattern):
    with pytest.raises(PatternInvalid, match="data is JSON"):
        compile_criteria([json.dumps(pattern)], format=record_format)


# --- sources ----------------------------------------------------------------------------------------------------------


def test_kafka_keys_are_data_too():
    assert keeps(KAFKA, {"key": ["k-1"]}, key=b"k-1")
    assert not keeps(KAFKA, {"key": ["k-1"]}, key=b"k-2")
    assert keeps(KAFKA, {"key": {"id": [7]}, "value": {"a": [1]}}, key=b'{"id": 7}', value=JSON)
    assert not keeps(KAFKA, {"key": {"id": [7]}, "value": {"a": [1]}}, key=b'{"id": 8}', value=JSON)


def test_a_null_of_kafka_is_the_null_of_json():
    assert keeps(KAFKA, {"value": [None]}, value=None)
    assert keeps(KAFKA, {"key": [None, "x"]}, key=None, value=b"x")
    assert not keeps(KAFKA, {"value": {"a": [1]}}, value=None)
    assert keeps(KAFKA, {"value": {"a": [{"exists": False}]}}, value=None)
    assert not keeps(KAFKA, {"value": ["x"]}, value=None)


def test_a_request_without_a_body_has_none():
    assert keeps(BRIDGE, {"body": [{"exists": False}]}, value=None)
    assert not keeps(BRIDGE, {"body": {"a": [1]}}, value=None)
    assert not keeps(KAFKA, {"value": [{"exists": False}]}, value=None)


@pytest.mark.parametrize("raw", [b"5", b'"5"', b"true", b"null", b" x", b"", b"{not json", b"[1,"])
def test_a_lone_scalar_and_what_only_looks_like_json_is_text(raw):
    assert keeps(SQS, {"body": [raw.decode()]}, value=raw)
    assert not keeps(SQS, {"body": {"a": [1]}}, value=raw)
    assert not keeps(SQS, {"body": [5]}, value=raw)
    assert keeps(KAFKA, {"value": {"a": [1]}}, value=raw)


def test_arrays_are_json_and_their_elements_agree():
    pattern = {"value": {"a": [1], "b": [2]}}

    assert keeps(KAFKA, pattern, value=b' [{"a": 1, "b": 2}]')
    assert not keeps(KAFKA, pattern, value=b'[{"a": 1}, {"b": 2}]')


def test_json_inside_json_is_text():
    assert not keeps(KAFKA, {"value": {"inner": {"a": [1]}}}, value=b'{"inner": "{\\"a\\": 1}"}')


def test_kinesis_metadata_is_at_the_top_and_where_the_event_has_it():
    document = {"kinesis": {"partitionKey": "p", "data": "eyJhIjoxfQ=="}, "eventName": "aws:kinesis:record"}
    raw = base64.b64decode("eyJhIjoxfQ==")

    assert keeps(KINESIS, {"partitionKey": ["p"], "data": {"a": [1]}}, value=raw, **document)
    assert keeps(KINESIS, {"kinesis": {"partitionKey": ["p"]}}, value=raw, **document)
    assert not keeps(KINESIS, {"partitionKey": ["q"], "data": {"a": [1]}}, value=raw, **document)


def test_dynamodb_data_is_the_record():
    document = {"eventName": "INSERT", "dynamodb": {"Keys": {"id": {"S": "1"}}, "NewImage": {"n": {"N": "5"}}}}

    assert keeps(DYNAMODB, {"eventName": ["INSERT"], "dynamodb": {"Keys": {"id": {"S": ["1"]}}}}, **document)
    assert not keeps(DYNAMODB, {"dynamodb": {"NewImage": {"n": {"N": [{"numeric": [">", 1]}]}}}}, **document)


def test_sqs_attributes():
    document = {"messageAttributes": {"kind": {"stringValue": "a", "dataType": "String"}}, "body": "x"}

    assert keeps(SQS, {"messageAttributes": {"kind": {"stringValue": ["a"]}}, "body": ["x"]}, value=b"x", **document)
    assert not keeps(
        SQS, {"messageAttributes": {"kind": {"stringValue": ["b"]}}, "body": ["x"]}, value=b"x", **document
    )


def test_alternatives_of_different_parts():
    pattern = {"$or": [{"value": {"a": [2]}}, {"topic": ["t"]}, {"value": {"a": [1]}, "key": ["k"]}]}

    assert keeps(KAFKA, pattern, key=b"k", value=JSON, topic="x")
    assert keeps(KAFKA, pattern, key=b"z", value=JSON, topic="t")
    assert not keeps(KAFKA, pattern, key=b"z", value=JSON, topic="x")


def test_dotted_paths_reach_into_the_data():
    assert keeps(KAFKA, {"value.a": [1]}, value=JSON)
    assert not keeps(KAFKA, {"value.a": [2]}, value=JSON)


def test_the_document_is_parsed_once_and_only_when_asked_for():
    asked = []
    filters = [json.dumps({"topic": [name]}) for name in "abc"] + [json.dumps({"partition": [1], "value": {"a": [5]}})]
    criteria = compile_criteria(filters, format=KAFKA)

    criteria.keeps(key=None, value=JSON, document=lambda: asked.append(1) or {"topic": "x", "partition": 1})

    assert [1] == asked


VALUES = [JSON, TEXT, BYTES, None, b"[1]", b'{"a": 2}', b'[{"a": 1}]', b"5", b"{broken"]


@pytest.mark.parametrize(
    ("record_format", "filters"),
    [
        (KAFKA, []), (KAFKA, [{"value": {"a": [1]}}]), (KAFKA, [{"value": {"a": [1]}}, {"topic": ["t1", "t3"]}]),
        (KAFKA, [{"value": ["plain text"], "key": ["k"]}]), (SQS, [{"body": {"a": [1]}}]), (SQS, [{"topic": ["t2"]}]),
    ],
)  # fmt: skip
def test_a_chunk_keeps_what_its_records_would(record_format, filters):
    criteria = compile_criteria([json.dumps(each) for each in filters], format=record_format)
    documents = [{"topic": f"t{i}"} for i in range(len(VALUES))]
    keys = [b"k" if i % 2 else None for i in range(len(VALUES))]
    chunk = Chunk(
        shard="s",
        positions=range(len(VALUES)),
        times_ms=[0] * len(VALUES),
        keys=keys,
        values=VALUES,
        fragments=[orjson.dumps(document) for document in documents],
        through=len(VALUES),
    )

    one_by_one = [
        index
        for index, (key, value, document) in enumerate(zip(keys, VALUES, documents, strict=True))
        if criteria.keeps(key=key, value=value, document=lambda document=document: document)
    ]
    assert one_by_one == criteria.kept(chunk)


# --- limits and mistakes ----------------------------------------------------------------------------------------------


def test_at_most_ten_filters():
    compile_criteria(['{"a": [1]}'] * limits.FILTERS_MAX, format=KAFKA)

    with pytest.raises(PatternInvalid, match="11 filters, at most 10"):
        compile_criteria(['{"a": [1]}'] * (limits.FILTERS_MAX + 1), format=KAFKA)


def test_a_mistake_names_its_filter():
    with pytest.raises(PatternInvalid, match=r"^filter 2: k: must be"):
        compile_criteria(['{"a": [1]}', '{"k": "v"}'], format=KAFKA)
    with pytest.raises(PatternInvalid, match=r"^k: must be"):
        compile_criteria(['{"k": "v"}'], format=KAFKA)


def test_many_alternatives_of_mixed_parts_are_made_in_time():
    pattern = {"$or": [{"value": {f"v{i}": [1]}, "topic": ["t"]} for i in range(60)], "partition": [0]}

    assert keeps(KAFKA, pattern, value=b'{"v59": 1}', topic="t", partition=0)
    assert not keeps(KAFKA, pattern, value=b'{"v60": 1}', topic="t", partition=0)


# --- explanations -----------------------------------------------------------------------------------------------------


def test_explain_shows_the_paths_as_written_and_what_did_not_fit():
    criteria = compile_criteria(['{"value": {"a": [1]}, "topic": ["t"]}'], format=KAFKA)

    told = criteria.explain(key=None, value=b"text", document=lambda: {"topic": "u"})

    assert not told.matched
    assert [("topic", False, ('"u"',)), ("value.a", True, ())] == [(f.path, f.matched, f.found) for f in told.fields]
    assert "the value is text, not JSON and the pattern asks for JSON" in told.fields[1].note


# --- against the document with its data replaced ----------------------------------------------------------------------

DATA = st.dictionaries(st.sampled_from("ab"), st.sampled_from([1, "x", None, [1, "x"], {"a": 1}, [{"a": 1}, {"b": 1}]]))
WANTED = st.sampled_from([[1], ["x"], [None], [{"exists": False}], {"a": [1]}, {"a": [1], "b": [1]}])
FILTER = st.dictionaries(
    st.sampled_from(["value", "key"]), st.dictionaries(st.sampled_from("ab"), WANTED, min_size=1), max_size=2
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(FILTER, st.sampled_from([None, "t", "u"])), min_size=1, max_size=3),
    st.lists(st.tuples(DATA, DATA, st.sampled_from("tu")), min_size=1, max_size=4),
)
@pytest.mark.slow
def test_parts_judged_apart_answer_as_the_whole_would(filters, records):
    from bridge.pipeline.filters import compile_pattern

    patterns = [{**data, **({"topic": [topic]} if topic else {})} for data, topic in filters]
    patterns = [pattern for pattern in patterns if pattern] or [{"topic": ["t"]}]
    whole = [compile_pattern(json.dumps(pattern)) for pattern in patterns]
    criteria = compile_criteria([json.dumps(pattern) for pattern in patterns], format=KAFKA)
    for key, value, topic in records:
        expected = any(each.interpret({"key": key, "value": value, "topic": topic}) for each in whole)
        given_record = {
            "key": orjson.dumps(key),
            "value": orjson.dumps(value),
            "document": lambda t=topic: {"topic": t},
        }

        assert expected == criteria.keeps(**given_record) == criteria.explain(**given_record).matched

"""Plain JSON as items and stream records: every kind of value, keys, and what is no item at all."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.events.dynamodb import arrival_ms, record_key
from bridge.events.items import (
    NotAnItem,
    attribute,
    change,
    filled,
    item,
    item_bytes,
    keyed_change,
    parse_plain,
    plain,
)

DOCUMENTS = st.dictionaries(
    st.text(),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    ),
)  # fmt: skip


def test_each_kind_of_value_has_its_type():
    document = parse_plain(b'{"s":"a","n":1.50,"t":true,"z":null,"l":[1,"a"],"m":{"x":-1e3}}')

    assert item(document) == {
        "s": {"S": "a"},
        "n": {"N": "1.50"},
        "t": {"BOOL": True},
        "z": {"NULL": True},
        "l": {"L": [{"N": "1"}, {"S": "a"}]},
        "m": {"M": {"x": {"N": "-1e3"}}},
    }


@given(DOCUMENTS)
def test_an_item_gives_its_document_back(document):
    made = item(parse_plain(json.dumps(document).encode()))

    assert document == {name: plain(value) for name, value in made.items()}


def test_a_number_of_38_digits_stays_what_it_is():
    digits = "12345678901234567890123456789012345678"

    assert {"N": digits} == attribute(parse_plain(digits.encode()))


def test_sets_and_binary_as_plain_json():
    assert ([1, 2.5], ["a"], "AAE=") == (plain({"NS": ["1", "2.5"]}), plain({"SS": ["a"]}), plain({"B": "AAE="}))


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"NaN", b'"\\ud800"', b"[" * 2000 + b"]" * 2000])
def test_what_is_not_json_is_no_item(text):
    with pytest.raises(NotAnItem, match="is not JSON"):
        parse_plain(text)


def test_what_is_nested_too_deep_is_no_item():
    def nested(depth):
        return parse_plain(b'{"a":' * depth + b"1" + b"}" * depth)

    assert attribute(nested(32))
    with pytest.raises(NotAnItem, match="more than 32 deep"):
        attribute(nested(33))


class TestChanges:
    def test_an_object_is_a_new_item(self):
        made = change(b'{"id":7,"a":"b"}', key=None)

        assert made == {
            "eventName": "INSERT",
            "dynamodb": {"Keys": {"id": {"N": "7"}}, "NewImage": {"id": {"N": "7"}, "a": {"S": "b"}}},
        }

    @pytest.mark.parametrize(
        ("value", "key", "keys"),
        [
            (b'{"id":7,"b":"7"}', b"7", {"id": {"N": "7"}}),
            (b'{"b":"7","id":8}', b"7", {"b": {"S": "7"}}),
            (b'{"id":8}', b"ada", {"id": {"S": "ada"}}),
            (b'{"a":8}', None, {}),
            (None, b"ada", {"id": {"S": "ada"}}),
            (None, None, {}),
        ],
    )
    def test_the_key_is_id_or_what_holds_it(self, value, key, keys):
        assert keys == change(value, key=key)["dynamodb"]["Keys"]

    def test_no_value_is_a_removed_item(self):
        assert {"eventName": "REMOVE", "dynamodb": {"Keys": {"id": {"S": "7"}}}} == change(None, key=b"7")

    @pytest.mark.parametrize(
        ("value", "image"),
        [
            (b"hello", {"S": "hello"}),
            (b"\xff", {"B": "/w=="}),
            (b"[1]", {"L": [{"N": "1"}]}),
            (b"5", {"N": "5"}),
            (b"[" * 34 + b"]" * 34, {"S": "[" * 34 + "]" * 34}),
        ],
    )
    def test_anything_else_is_one_attribute(self, value, image):
        assert {"value": image} == change(value, key=None)["dynamodb"]["NewImage"]

    def test_a_stream_record_is_taken_as_it_is(self):
        record = {"eventName": "MODIFY", "dynamodb": {"Keys": {"id": {"N": "1"}}, "OldImage": {}, "NewImage": {}}}

        assert record == change(json.dumps(record).encode(), key=b"other")

    def test_a_stream_record_that_could_not_be_written_again_is_one_attribute(self):
        text = '{"dynamodb":{"NewImage":{"a":' + '{"L":[' * 130 + "]}" * 130 + "}}}"

        assert {"value": {"S": text}} == change(text.encode(), key=None)["dynamodb"]["NewImage"]

    def test_a_key_of_named_attributes(self):
        made = keyed_change(b'{"pk":"a","sk":2,"x":1}', ["pk", "sk"])

        assert {"pk": {"S": "a"}, "sk": {"N": "2"}} == made["dynamodb"]["Keys"]
        assert b'{"pk":{"S":"a"},"sk":{"N":"2"}}' == record_key(made)

    @pytest.mark.parametrize(
        ("value", "message"), [(b"[1]", "is no JSON object"), (b"{}", "has no pk"), (b"{", "is not JSON")]
    )
    def test_what_has_no_such_key(self, value, message):
        with pytest.raises(NotAnItem, match=message):
            keyed_change(value, ["pk"])


def complete(record):
    return filled(record, event_id="0" * 32, sequence_number="117", time_ms=1500, region="eu-west-1")


class TestFilled:
    def test_all_that_aws_has_is_there_in_its_order(self):
        assert complete(change(b'{"id":7}', key=None)) == {
            "eventID": "0" * 32,
            "eventName": "INSERT",
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": "eu-west-1",
            "dynamodb": {
                "ApproximateCreationDateTime": 1,
                "Keys": {"id": {"N": "7"}},
                "NewImage": {"id": {"N": "7"}},
                "SequenceNumber": "117",
                "SizeBytes": 6,
                "StreamViewType": "NEW_AND_OLD_IMAGES",
            },
        }

    def test_what_the_record_says_stays_but_for_its_place(self):
        told = {
            "eventID": "e", "eventName": "REMOVE", "eventVersion": "1.0", "awsRegion": "us-east-1",
            "userIdentity": {"type": "Service"},
            "dynamodb": {"ApproximateCreationDateTime": 9.5, "Keys": {}, "SequenceNumber": "5", "SizeBytes": 1,
                         "StreamViewType": "KEYS_ONLY"},
        }  # fmt: skip

        made = complete(told)

        assert "117" == made["dynamodb"].pop("SequenceNumber")
        del told["dynamodb"]["SequenceNumber"]
        assert told | {"eventSource": "aws:dynamodb", "awsRegion": "eu-west-1"} == made

    @pytest.mark.parametrize(
        ("images", "name"),
        [
            ({"NewImage": {}}, "INSERT"),
            ({"NewImage": {}, "OldImage": {}}, "MODIFY"),
            ({"OldImage": {}}, "REMOVE"),
            ({}, "MODIFY"),
        ],
    )
    def test_the_images_say_what_happened(self, images, name):
        assert name == complete({"dynamodb": images})["eventName"]

    @pytest.mark.parametrize("change", [{}, {"Keys": 5, "NewImage": [1], "ApproximateCreationDateTime": "x"}])
    def test_nonsense_is_no_trouble(self, change):
        assert 1 == complete({"dynamodb": change})["dynamodb"]["ApproximateCreationDateTime"]

    @pytest.mark.parametrize("created", [1e306, 1e300, 253_402_300_800, -1])
    def test_a_time_beyond_the_calendar_does_not_count(self, created):
        made = complete({"dynamodb": {"ApproximateCreationDateTime": created}})

        assert 1 == made["dynamodb"]["ApproximateCreationDateTime"]
        assert 1000 == arrival_ms(made)


def test_what_an_item_weighs():
    made = {"s": {"S": "ü"}, "n": {"N": "123"}, "b": {"B": "AAE="}, "t": {"BOOL": True}, "l": {"L": [{"S": "a"}]},
            "m": {"M": {"x": {"NULL": True}}}, "ss": {"SS": ["a", "bc"]}}  # fmt: skip

    assert (1 + 2) + (1 + 2) + (1 + 3) + (1 + 1) + (1 + 3 + 2) + (1 + 3 + 2) + (2 + 3) == item_bytes(made)

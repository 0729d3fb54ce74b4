"""CloudEvents: the specification's examples and what the SDK of the project sends, in every mode."""

import base64
import datetime as dt
import json
from pathlib import Path

import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.events.bodies import Unreadable
from bridge.events.cloudevents import BATCH, STRUCTURED, cloudevent, is_batch, read_cloudevents

GOLDEN = Path(__file__).parent / "golden" / "vendors"
REQUIRED = {"specversion": "1.0", "id": "A1", "source": "/here", "type": "com.example.thing"}


def golden(name):
    return json.loads((GOLDEN / name).read_bytes())


def headers_of(named):
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in named.items()]


def structured(value, *, content_type=STRUCTURED):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return read_cloudevents([(b"content-type", content_type.encode())], body)


def binary(attributes=REQUIRED, *, body=b"", **named):
    headers = {f"ce-{name}": value for name, value in attributes.items()}
    return read_cloudevents(
        headers_of(headers | {name.replace("_", "-"): value for name, value in named.items()}), body
    )


class TestStructured:
    @pytest.mark.parametrize("name", ["cloudevents-structured.json", "cloudevents-binary-data.json"])
    @pytest.mark.parametrize(
        "content_type", [STRUCTURED, STRUCTURED + "; charset=utf-8", "Application/CloudEvents+JSON"]
    )
    def test_an_example_is_kept_byte_for_byte(self, name, content_type):
        body = (GOLDEN / name).read_bytes()

        (event,) = structured(body, content_type=content_type)

        assert body.strip() == event.payload

    def test_source_and_id_name_it(self):
        (event,) = structured(golden("cloudevents-structured.json"))

        assert "https://github.com/cloudevents/spec/pull A234-1234-1234" == event.delivery_id

    def test_numbers_that_no_parser_here_can_hold_stay_whole(self):
        body = b'{"specversion":"1.0","id":"1","source":"/a","type":"t","data":123456789012345678901234567890.5}'

        assert body == structured(body)[0].payload

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"specversion": "0.3"}, "specversion is '0.3'; 1.0 is read"),
            ({"specversion": None}, "specversion is missing"),
            ({"specversion": 1.0}, "specversion is no text"),
            ({"id": ""}, "id is empty"),
            ({"source": None}, "source is missing"),
            ({"type": 7}, "type is no text"),
            ({"time": "yesterday"}, "time is 'yesterday'; it must be like 2020-07-30T17:00:00Z"),
            ({"time": "2020-07-30T17:00:00"}, "time is '2020-07-30T17:00:00'; it must be"),
            ({"subject": 7}, "subject is no text"),
            ({"datacontenttype": []}, "datacontenttype is no text"),
            ({"data": 1, "data_base64": "aGk="}, "data and data_base64 exclude each other"),
            ({"data_base64": "*"}, "data_base64 is not base64"),
            ({"data_base64": 7}, "data_base64 is no text"),
        ],
    )
    def test_what_is_wrong_is_said_in_one_line(self, change, text):
        with pytest.raises(Unreadable) as refusal:
            structured(REQUIRED | change)

        assert str(refusal.value).startswith(text)

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b"\xef\xbb\xbf{}", b'{"id":"\\ud800"}', b"\x00"])
    def test_what_is_no_object_is_said_in_one_line(self, body):
        with pytest.raises(Unreadable) as refusal:
            structured(body)

        assert "\n" not in str(refusal.value)

    def test_another_format_is_not_read(self):
        with pytest.raises(Unreadable, match=r"content type 'application/cloudevents\+avro' is not read"):
            structured(b"", content_type="application/cloudevents+avro")


class TestBatch:
    def test_the_example_becomes_its_events_in_order(self):
        sample = golden("cloudevents-batch.json")

        events = structured(sample, content_type=BATCH)

        assert sample == [json.loads(event.payload) for event in events]
        assert ["/mycontext/4 B234-1234-1234", "/mycontext/9 C234-1234-1234"] == [event.delivery_id for event in events]

    def test_each_event_of_a_batch_is_kept_as_it_is_written(self):
        one = b'{"specversion":"1.0","id":"1","source":"/s","type":"t", "data": {"n": 123456789012345678901234567890, "x": 1.10}}'
        body = b" [ %b ,\n%b]\n" % (one, one)
        events = read_cloudevents([(b"content-type", BATCH.encode())], body)
        assert [event.payload for event in events] == [one, one]

    def test_an_empty_batch_has_no_events(self):
        assert [] == structured([], content_type=BATCH)

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ({}, "a batch is no list"),
            ([REQUIRED, 7], "event 1 of the batch: a CloudEvent is no JSON object"),
            ([REQUIRED, REQUIRED | {"id": ""}], "event 1 of the batch: id is empty"),
        ],
    )
    def test_one_bad_event_refuses_all(self, value, text):
        with pytest.raises(Unreadable, match=text):
            structured(value, content_type=BATCH)


class TestPlainJson:
    """What neither content type nor headers say to be a CloudEvent, but can be nothing else."""

    def test_an_object_is_structured_and_a_list_is_a_batch(self):
        plain = "application/json; charset=utf-8"

        assert ["/here A1"] == [event.delivery_id for event in structured(REQUIRED, content_type=plain)]
        assert ["/here A1"] * 2 == [event.delivery_id for event in structured([REQUIRED] * 2, content_type=plain)]
        assert is_batch([(b"content-type", b"application/json")], b" [1]")
        assert not is_batch([(b"content-type", b"application/json")], b"{}")

    def test_with_headers_it_is_data(self):
        (event,) = binary(content_type="application/json", body=json.dumps([REQUIRED]).encode())

        assert [REQUIRED] == json.loads(event.payload)["data"]

    def test_it_must_be_a_cloudevent(self):
        with pytest.raises(Unreadable, match="specversion is missing"):
            structured({"id": 1}, content_type="application/json")


class TestBinary:
    def test_attributes_are_members_and_json_is_kept_byte_for_byte(self):
        (event,) = binary(
            REQUIRED | {"subject": "123", "comexample": "x"},
            content_type="application/json",
            body=b' {"a": 1.00000000000000000000000000001} ',
        )

        assert b',"datacontenttype":"application/json","data":{"a": 1.00000000000000000000000000001}}' in event.payload
        assert "/here A1" == event.delivery_id
        assert ("123", "x") == tuple(json.loads(event.payload)[name] for name in ("subject", "comexample"))

    @pytest.mark.parametrize(
        ("content_type", "body", "member"),
        [
            ("application/json", b"[1]", {"data": [1]}),
            ("application/vnd.x+json; charset=utf-8", b'"a"', {"data": "a"}),
            ("text/json", b"null", {"data": None}),
            ("text/plain", "ü".encode(), {"data": "ü"}),
            ("text/plain", b"\xff", {"data_base64": "/w=="}),
            ("application/xml", b"<a/>", {"data": "<a/>"}),
            ("application/octet-stream", b"a", {"data_base64": "YQ=="}),
            ("", b'{"id": 1}', {"data": {"id": 1}}),
            ("", b"hello", {"data_base64": "aGVsbG8="}),
            ("text/plain", b"", {}),
        ],
    )
    def test_what_the_data_becomes(self, content_type, body, member):
        (event,) = binary(body=body, **({"content_type": content_type} if content_type else {}))

        made = json.loads(event.payload)
        assert REQUIRED | ({"datacontenttype": content_type} if content_type else {}) | member == made

    @pytest.mark.parametrize(
        ("sent", "meant"),
        [
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"), ('"a \\"b\\" c"', 'a "b" c'), ("100%", "100%"), ("%zz", "%zz"),
            ("a,b", "a,b"),
        ],
    )  # fmt: skip
    def test_header_values_are_decoded(self, sent, meant):
        assert meant == json.loads(binary(REQUIRED | {"subject": sent})[0].payload)["subject"]

    @pytest.mark.parametrize(
        ("attributes", "named", "body", "text"),
        [
            ({}, {}, b"{}", "no CloudEvent: neither ce- headers nor content type "),
            (REQUIRED | {"id": ""}, {}, b"", "id is empty"),
            ({"specversion": "1.0"}, {}, b"", "id is missing"),
            (REQUIRED | {"specversion": "0.2"}, {}, b"", "specversion is '0.2'"),
            (REQUIRED | {"subject": "%ff"}, {}, b"", "header ce-subject is not UTF-8"),
            (REQUIRED | {"data": "x"}, {}, b"", "header ce-data is no attribute"),
            (REQUIRED | {"datacontenttype": "x"}, {}, b"", "header ce-datacontenttype is no attribute"),
            (REQUIRED, {"content_type": "application/json"}, b"{", "the data is not the JSON that content type "),
            (
                REQUIRED,
                {"content_type": "application/json"},
                b'{"a":' * 250 + b"1" + b"}" * 250,
                "the data is not the JSON",
            ),
            (REQUIRED, {"content_encoding": "gzip"}, b"x", "a CloudEvent with a content encoding is not read"),
        ],
    )
    def test_what_is_wrong_is_said_in_one_line(self, attributes, named, body, text):
        with pytest.raises(Unreadable) as refusal:
            binary(attributes, body=body, **named)

        assert str(refusal.value).startswith(text)

    def test_an_attribute_given_twice_is_refused(self):
        headers = [*headers_of({f"ce-{name}": value for name, value in REQUIRED.items()}), (b"ce-id", b"B2")]

        with pytest.raises(Unreadable, match="header 'ce-id' is given more than once"):
            read_cloudevents(headers, b"")


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)
DATA = (
    st.none() | st.text() | st.binary() | st.dictionaries(st.text(max_size=5), st.integers(-(2**53), 2**53), max_size=3)
)


@settings(max_examples=200, deadline=None)
@given(id_=TEXT, source=TEXT, subject=TEXT, data=DATA)
def test_what_the_sdk_sends_in_either_mode_is_what_it_reads_again(id_, source, subject, data):
    content_type = "application/json" if isinstance(data, dict) else "application/octet-stream"
    content_type = "text/plain" if isinstance(data, str) else content_type
    time = dt.datetime(2020, 7, 30, 17, 0, 0, 5000, tzinfo=dt.UTC)
    sent = CloudEvent(
        {
            "id": id_, "source": source, "type": "t", "specversion": "1.0", "subject": subject, "time": time,
            "datacontenttype": content_type,
        },
        data,
    )  # fmt: skip

    for convert in (to_binary_event, to_structured_event):
        message = convert(sent)
        (event,) = read_cloudevents(headers_of(message.headers), message.body)
        got = JSONFormat().read(None, event.payload)
        # Spaces at a header's ends belong to HTTP; the SDK percent-encodes them, as the binding says.
        assert (id_, source, subject, time) == (got.get_id(), got.get_source(), got.get_subject(), got.get_time())
        assert (data or None) == (got.get_data() or None)
        assert f"{source} {id_}" == event.delivery_id


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([b"content-type", b"ce-id", b"ce-source", b"ce-type", b"ce-specversion", b"ce-x"]),
                          st.binary(max_size=30)), max_size=6), st.binary(max_size=60))  # fmt: skip
def test_any_headers_and_body_are_read_or_refused_in_one_line(headers, body):
    complete = [*headers_of({f"ce-{name}": value for name, value in REQUIRED.items()}), *headers]
    for given_headers in (
        headers,
        complete,
        [(b"content-type", STRUCTURED.encode())],
        [(b"content-type", BATCH.encode())],
    ):
        try:
            events = read_cloudevents(given_headers, body)
        except Unreadable as error:
            assert "\n" not in str(error)
        else:
            for event in events:
                assert "1.0" == json.loads(event.payload)["specversion"]


def test_bytes_come_back_from_the_event():
    made = json.loads(cloudevent(REQUIRED, data=b"\x00\xff", content_type="image/png"))

    assert b"\x00\xff" == base64.b64decode(made["data_base64"])

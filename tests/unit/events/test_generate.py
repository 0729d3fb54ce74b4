"""Generated events: AWS's samples reproduced, every field chosen, and records as lines."""

import json
from pathlib import Path

import pytest

from bridge.events.generate import NotText, kafka_event, record_line
from bridge.events.generate_http import WebhookRequest, webhook_event
from bridge.events.http import TooManyParameters
from bridge.events.kafka import CREATE_TIME, KafkaRecord, parse_event

GOLDEN = Path(__file__).parent / "golden"
SERVERS = (
    "b-2.demo-cluster-1.a1bcde.c1.kafka.us-east-1.amazonaws.com:9092,"
    "b-1.demo-cluster-1.a1bcde.c1.kafka.us-east-1.amazonaws.com:9092"
)


def record(**changes):
    fields = {
        "topic": "mytopic", "partition": 0, "offset": 15, "timestamp_ms": 1545084650987, "timestamp_type": CREATE_TIME,
        "key": b"recordKey", "value": b'{"key":"value"}', "headers": (("headerKey", b"headerValue"),),
    }  # fmt: skip
    return KafkaRecord(**fields | changes)


def golden(name):
    return json.loads((GOLDEN / name).read_bytes())


def test_the_sample_of_msk_is_reproduced():
    sample = golden("powertools-python/kafkaEventMsk.json")

    made = kafka_event([record()], bootstrap_servers=SERVERS, msk_arn=sample["eventSourceArn"])

    assert sample == json.loads(made)


def test_the_sample_of_a_self_managed_cluster_is_reproduced_but_for_the_older_name():
    sample = golden("powertools-python/kafkaEventSelfManaged.json") | {"eventSource": "SelfManagedKafka"}

    assert sample == json.loads(kafka_event([record()], bootstrap_servers=SERVERS))


def test_several_partitions_in_one_event():
    records = [record(offset=1), record(partition=2, offset=7, value=None, key=None), record(offset=2)]

    made = kafka_event(records, bootstrap_servers="k:9092")

    assert ["mytopic-0", "mytopic-2"] == list(json.loads(made)["records"])
    assert [records[0], records[2], records[1]] == parse_event(made)


def test_bytes_of_any_kind_go_in_as_they_are():
    odd = record(key=b"\xff", value=b"\x00\xfe", headers=(("a", b"\xdc\x80"), ("a", b"")))

    made = kafka_event([odd], bootstrap_servers="k:9092")

    assert [odd] == parse_event(made)
    assert [{"a": [-36, -128]}, {"a": []}] == json.loads(made)["records"]["mytopic-0"][0]["headers"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b'{"a": 1}', {"a": 1}), ("grün".encode(), "grün"), (None, None), (b"5", 5), (b"", "")],
)
def test_a_record_as_a_line(value, expected):
    line = record_line(record(value=value))

    assert {"key": "recordKey", "value": expected, "headers": {"headerKey": "headerValue"}} == json.loads(line)
    assert b"\n" not in line


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"key": b"\xff"}, "key"), ({"value": b"\xff"}, "value"), ({"headers": (("h", b"\xff"),)}, "header h")],
)
def test_a_line_holds_no_bytes(changes, what):
    with pytest.raises(NotText, match=f"the {what} is not UTF-8"):
        record_line(record(**changes))


def webhook(**fields):
    return json.loads(webhook_event(WebhookRequest(**fields), request_id="id-1", received_at=1583348638.39))


def test_a_webhook_has_the_members_of_the_sample():
    sample = golden("aws-lambda-go/apigw-v2-request-no-authorizer.json")
    sample["requestContext"].pop("authentication")

    made = webhook(method="GET")

    assert sample.keys() == made.keys()
    assert sample["requestContext"].keys() == made["requestContext"].keys()
    assert sample["requestContext"]["http"].keys() == made["requestContext"]["http"].keys()


def test_the_fields_of_a_webhook():
    made = webhook(
        method="PUT",
        path="/a%20b",
        query=[("q", "x y"), ("q", "ü&=")],
        headers=[("X-Kind", "grün"), ("Content-Type", "application/json"), ("Host", "example.org")],
        body=b'{"n": 1}',
        source_ip="192.0.2.1",
    )

    assert ("/a%20b", "q=x+y&q=%C3%BC%26%3D") == (made["rawPath"], made["rawQueryString"])
    assert {"q": "x y,ü&="} == made["queryStringParameters"]
    assert ("grün", "example.org", "8") == tuple(made["headers"][n] for n in ("x-kind", "host", "content-length"))
    assert ('{"n": 1}', False) == (made["body"], made["isBase64Encoded"])
    context = made["requestContext"]
    assert ("id-1", 1583348638390, "PUT", "192.0.2.1") == (
        context["requestId"], context["timeEpoch"], context["http"]["method"], context["http"]["sourceIp"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "content_type", "is_base64"),
    [
        (b"{}", "application/json", False),
        (b"hi", "text/plain; charset=utf-8", False),
        (b"\xff", "application/octet-stream", True),
    ],
)
def test_the_content_type_follows_the_body(body, content_type, is_base64):
    made = webhook(body=body)

    assert (content_type, is_base64) == (made["headers"]["content-type"], made["isBase64Encoded"])


def test_too_many_parameters():
    with pytest.raises(TooManyParameters):
        webhook(query=[("a", "b")] * 1000)

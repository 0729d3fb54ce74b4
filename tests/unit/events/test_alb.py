"""HTTP requests as events of a load balancer: the samples reproduced, single or multi-value, valid JSON whatever comes."""

import base64
import json
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.limits import QUERY_PAIRS_MAX
from bridge.events.alb import alb_event, is_websocket, target_group_arn
from bridge.events.http import HttpRequest, TooManyParameters

GOLDEN = Path(__file__).parent / "golden"


def event_of(request, *, multi_value=False, target_group="arn", **options):
    raw = alb_event(
        request,
        target_group=target_group,
        request_id="deef4878-7910-41e6-8f14-25afc3e9ae33",
        received_at=1583349317.135,
        multi_value=multi_value,
        **options,
    )
    return orjson.loads(raw)


@pytest.mark.parametrize(
    ("name", "multi_value"),
    [
        ("aws-lambda-go/alb-lambda-target-request-headers-only.json", False),
        ("aws-lambda-go/alb-lambda-target-request-multivalue-headers.json", True),
        ("powertools-python/albEvent.json", False),
        ("powertools-python/albMultiValueHeadersEvent.json", True),
        ("powertools-python/albMultiValueQueryStringEvent.json", True),
        ("sam-cli/alb-request.json", False),
    ],
)
def test_a_sample_comes_out_of_the_request_that_made_it(name, multi_value):
    sample = json.loads((GOLDEN / name).read_text())
    given_headers = sample.get("multiValueHeaders") or {n: [v] for n, v in sample["headers"].items()}
    query = sample.get("multiValueQueryStringParameters")
    if query is None:
        query = {n: [v] for n, v in sample["queryStringParameters"].items()}
    added = {"x-forwarded-for", "x-forwarded-port", "x-forwarded-proto"}
    host = given_headers["host"][0]
    headers = [(n, v) for n, values in given_headers.items() if n not in added for v in values if n != "host"]
    body = sample["body"].encode()
    if sample["isBase64Encoded"]:
        body = base64.b64decode(body)
        headers.append(("content-encoding", "identity"))
        given_headers["content-encoding"] = ["identity"]
    elif body:
        headers.append(("content-type", "text/plain"))
        given_headers["content-type"] = ["text/plain"]
    request = HttpRequest(
        method=sample["httpMethod"],
        path=sample["path"].encode(),
        query="&".join(f"{n}={v}" for n, values in query.items() for v in values).encode(),
        headers=[(n.encode(), v.encode()) for n, v in [("host", host), *headers]],
        body=body,
        source_ip=given_headers["x-forwarded-for"][0],
        scheme="http",
    )
    group = sample["requestContext"]["elb"]["targetGroupArn"]
    made = event_of(request, multi_value=multi_value, target_group=group)

    if multi_value:
        sample["multiValueHeaders"] = given_headers
    else:
        sample["headers"] = {n: values[-1] for n, values in given_headers.items()}
    assert made == sample
    assert list(made) == list(sample)


def request_of(*headers, **options):
    return HttpRequest(method="POST", path=b"/a%20b", headers=headers, source_ip="203.0.113.5", **options)


def test_single_values_are_the_last_ones_and_nothing_is_decoded():
    event = event_of(request_of((b"x", b"1"), (b"x", b"2"), query=b"a=1&a=%20b+c&q%3D=&d"))
    assert event["path"] == "/a%20b"
    assert event["queryStringParameters"] == {"a": "%20b+c", "q%3D": "", "d": ""}
    assert event["headers"]["x"] == "2"
    assert not {"multiValueHeaders", "multiValueQueryStringParameters"} & event.keys()


def test_multi_values_are_all_of_them():
    event = event_of(request_of((b"x", b"1"), (b"x", b"2"), query=b"a=1&a=%20b"), multi_value=True)
    assert event["multiValueQueryStringParameters"] == {"a": ["1", "%20b"]}
    assert event["multiValueHeaders"]["x"] == ["1", "2"]
    assert not {"headers", "queryStringParameters"} & event.keys()


def test_without_body_and_query_members_are_empty_and_not_null():
    event = event_of(request_of())
    assert (event["body"], event["isBase64Encoded"], event["queryStringParameters"]) == ("", False, {})


def test_what_a_load_balancer_adds():
    headers = event_of(request_of((b"host", b"example.com:8443"), scheme="https"))["headers"]
    assert headers["x-forwarded-for"] == "203.0.113.5"
    assert headers["x-forwarded-port"] == "8443"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["x-amzn-trace-id"] == "Root=1-5e5ffe45-deef4878791041e68f1425af"
    behind = event_of(request_of((b"x-forwarded-for", b"198.51.100.7"), (b"x-amzn-trace-id", b"Root=1-a-b")))["headers"]
    assert behind["x-forwarded-for"] == "198.51.100.7, 203.0.113.5"
    assert behind["x-forwarded-port"] == "80"
    assert behind["x-amzn-trace-id"] == "Root=1-a-b"


@pytest.mark.parametrize(
    ("headers", "is_base64"),
    [
        ([(b"content-type", b"text/csv; charset=utf-8")], False),
        ([(b"content-type", b"application/json")], False),
        ([(b"content-type", b"application/xml")], False),
        ([(b"content-type", b"application/javascript")], False),
        ([(b"content-type", b"application/vnd.api+json")], True),
        ([(b"content-type", b"application/json"), (b"content-encoding", b"gzip")], True),
        ([], True),
    ],
)
def test_what_is_no_text_by_its_type_is_base64(headers, is_base64):
    event = event_of(request_of(*headers, body=b"{}"))
    assert event["isBase64Encoded"] is is_base64
    assert event["body"] == ("e30=" if is_base64 else "{}")


def test_text_that_is_no_utf_8_is_base64():
    event = event_of(request_of((b"content-type", b"text/plain"), body=b"\xff"))
    assert (event["isBase64Encoded"], event["body"]) == (True, "/w==")


def test_a_hidden_header_is_left_out():
    event = event_of(request_of((b"authorization", b"Bearer s")), hidden_headers={"authorization"})
    assert "authorization" not in event["headers"]


def test_query_parameters_are_bounded():
    with pytest.raises(TooManyParameters):
        event_of(request_of(query=b"&".join([b"a=1"] * (QUERY_PAIRS_MAX + 1))))


def test_the_target_group_is_the_route_s():
    made = target_group_arn("web", region="eu-central-1", account_id="123456789012")
    assert made.startswith("arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web/")
    assert made == target_group_arn("web", region="eu-central-1", account_id="123456789012")
    assert len(made.rpartition("/")[2]) == 16


def test_a_websocket_s_handshake_is_known_by_its_key():
    assert is_websocket(request_of((b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")))
    assert not is_websocket(request_of((b"connection", b"upgrade")))


@pytest.mark.parametrize("multi_value", [False, True])
@given(
    path=st.binary(max_size=50),
    query=st.binary(max_size=200),
    headers=st.lists(
        st.tuples(st.one_of(st.sampled_from([b"cookie", b"content-type", b"x-forwarded-for", b"host"]), st.binary(max_size=20).map(bytes.lower)), st.binary(max_size=50)),
        max_size=8,
    ),
    body=st.binary(max_size=300),
)  # fmt: skip
def test_the_event_is_valid_json_and_gives_the_body_back_whatever_was_sent(multi_value, path, query, headers, body):
    request = HttpRequest(method="POST", path=path, query=query, headers=headers, body=body, source_ip="192.0.2.1")
    raw = alb_event(
        request, target_group="arn", request_id="0" * 36, received_at=0.0, multi_value=multi_value
    )  # fmt: skip
    event = json.loads(raw.decode("utf-8"))

    assert event == orjson.loads(raw)
    assert (base64.b64decode(event["body"]) if event["isBase64Encoded"] else event["body"].encode()) == body
    assert event["path"].encode("latin-1") == path
    names = event["multiValueHeaders" if multi_value else "headers"].keys()
    assert names >= {name.decode("latin-1") for name, _ in headers}

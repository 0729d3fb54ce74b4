"""HTTP requests as API Gateway v2 events: the samples reproduced, text or base64, and valid JSON whatever was sent."""

import base64
import json
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.limits import QUERY_PAIRS_MAX
from bridge.events.http import (
    HttpOrigin,
    HttpRequest,
    TooManyParameters,
    http_event,
    is_text_type,
    query_parameters,
    request_time,
)

GOLDEN = Path(__file__).parent / "golden"
ORIGIN = HttpOrigin(account_id="000000000000", api_id="hello")


def event_of(request, origin=ORIGIN):
    return orjson.loads(http_event(request, origin=origin, request_id="id", received_at=1583348638.390))


def post(body, content_type=b"application/json", *headers):
    pairs = [(b"host", b"localhost:8580"), (b"content-type", content_type), *headers]
    return HttpRequest(method="POST", path=b"/hooks/hello", headers=pairs, body=body, source_ip="127.0.0.1")


# --- samples ----------------------------------------------------------------------------------------------------------

NOT_HTTP = ("authentication", "authorizer")
"""What a request does not determine: set by authorizers and certificates, which webhooks do not have."""
TIMES_DISAGREE = {
    "powertools-python/apiGatewayProxyV2Event.json",
    "powertools-python/apiGatewayProxyV2Event_GET.json",
    "powertools-python/lambdaFunctionUrlEvent.json",
    "powertools-python/lambdaFunctionUrlIAMEvent.json",
    "aws-lambda-go/lambda-urls-request.json",
}
"""Samples whose `time` and `timeEpoch` are different moments."""
NOT_OURS = ("pathParameters", "stageVariables")


@pytest.mark.parametrize(
    "name",
    [
        "powertools-python/apiGatewayProxyV2Event.json",
        "powertools-python/apiGatewayProxyV2Event_GET.json",
        "powertools-python/lambdaFunctionUrlEvent.json",
        "powertools-python/lambdaFunctionUrlIAMEvent.json",
        "aws-lambda-go/apigw-v2-request-no-authorizer.json",
        "aws-lambda-go/lambda-urls-request.json",
    ],
)
def test_a_sample_comes_out_of_the_request_that_made_it(name):
    sample = json.loads((GOLDEN / name).read_text())
    context = sample["requestContext"]
    headers = [(k.lower().encode(), v.encode()) for k, v in sample["headers"].items()]
    added = {"host": context["domainName"], "user-agent": context["http"]["userAgent"]}
    if "body" in sample:
        added["content-type"] = "application/json"
    headers += [(k.encode(), v.encode()) for k, v in added.items() if k not in sample["headers"]]
    headers += [(b"cookie", "; ".join(sample["cookies"]).encode())] if "cookies" in sample else []
    request = HttpRequest(
        method=context["http"]["method"],
        path=sample["rawPath"].encode(),
        query=sample["rawQueryString"].encode(),
        headers=headers,
        body=sample.get("body", "").encode(),
        source_ip=context["http"]["sourceIp"],
    )
    origin = HttpOrigin(account_id=context["accountId"], api_id=context["apiId"])
    made = orjson.loads(
        http_event(request, origin=origin, request_id=context["requestId"], received_at=context["timeEpoch"] / 1000)
    )

    for key in NOT_OURS:
        sample.pop(key, None)
    for key in NOT_HTTP:
        context.pop(key, None)
    sample["headers"] = {k.lower(): v for k, v in sample["headers"].items()}
    made["headers"] = {k: v for k, v in made["headers"].items() if k in sample["headers"]}
    sample.setdefault("routeKey", "$default")
    context.setdefault("routeKey", "$default")
    context.setdefault("stage", "$default")
    context["http"]["userAgent"] = sample["headers"].get("user-agent", context["http"]["userAgent"])
    if name in TIMES_DISAGREE:
        context["time"] = request_time(context["timeEpoch"] // 1000)
    assert made == sample


def test_the_members_come_in_the_samples_order():
    sample = json.loads((GOLDEN / "powertools-python/apiGatewayProxyV2Event.json").read_text())
    request = post(b"{}", b"application/json", (b"cookie", b"a=1"))._replace(query=b"x=1")
    made = list(event_of(request))

    assert made == [key for key in sample if key in made]


# --- members ----------------------------------------------------------------------------------------------------------


def test_absent_members_are_omitted():
    event = event_of(HttpRequest(method="GET", path=b"/"))

    assert event.keys().isdisjoint({"body", "cookies", "queryStringParameters", "pathParameters", "stageVariables"})
    assert event["isBase64Encoded"] is False
    assert event["rawQueryString"] == ""


def test_repeated_headers_are_joined_and_cookies_are_an_array():
    pairs = ((b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3"), (b"cookie", b"a=1; b=2"), (b"cookie", b"c=3;"))
    event = event_of(HttpRequest(method="GET", path=b"/", headers=pairs))

    assert event["headers"] == {"x-a": "1,3", "x-b": "2"}
    assert event["cookies"] == ["a=1", "b=2", "c=3"]


def test_a_hidden_header_is_left_out():
    origin = HttpOrigin(account_id="0", api_id="x", hidden_headers=frozenset({"authorization"}))
    event = event_of(
        HttpRequest(method="GET", path=b"/", headers=((b"authorization", b"Bearer s"), (b"a", b"b"))), origin
    )

    assert event["headers"] == {"a": "b"}


@pytest.mark.parametrize(
    ("host", "domain", "prefix"),
    [
        (b"id.lambda-url.us-east-1.on.aws", "id.lambda-url.us-east-1.on.aws", "id"),
        (b"localhost:8580", "localhost", "localhost"),
        (b"[::1]:8580", "[::1]", "[::1]"),
        (b"[::1]", "[::1]", "[::1]"),
    ],
)
def test_the_domain_is_the_host_without_its_port(host, domain, prefix):
    context = event_of(HttpRequest(method="GET", path=b"/", headers=((b"host", host),)))["requestContext"]

    assert (context["domainName"], context["domainPrefix"]) == (domain, prefix)


def test_path_and_query_are_kept_as_sent_and_parameters_are_decoded():
    event = event_of(HttpRequest(method="GET", path=b"/a%20b", query=b"q=a%20b&q=c+d&empty&x=%C3%A9&=1&&y=%FF"))

    assert event["rawPath"] == event["requestContext"]["http"]["path"] == "/a%20b"
    assert event["rawQueryString"] == "q=a%20b&q=c+d&empty&x=%C3%A9&=1&&y=%FF"
    expected = {"q": "a b,c d", "empty": "", "x": "é", "": "1", "y": "\ufffd"}
    assert event["queryStringParameters"] == expected


def test_a_query_of_separators_has_no_parameters():
    assert "queryStringParameters" not in event_of(HttpRequest(method="GET", path=b"/", query=b"&&"))


def test_query_parameters_are_bounded():
    assert len(query_parameters(b"&".join(b"%d" % n for n in range(QUERY_PAIRS_MAX)))) == QUERY_PAIRS_MAX
    with pytest.raises(TooManyParameters):
        query_parameters(b"&" * 1000)


def test_the_time_is_as_aws_writes_it():
    assert request_time(1583348638) == "04/Mar/2020:19:03:58 +0000"
    assert event_of(post(b"{}"))["requestContext"]["timeEpoch"] == 1583348638390


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "is_text"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ("APPLICATION/JSON", True),
        ("application/cloudevents+json", True),
        ("text/plain", True),
        ("application/xml", True),
        ("application/javascript", True),
        ("application/x-www-form-urlencoded", False),
        ("multipart/form-data; boundary=x", False),
        ("application/octet-stream", False),
        ("image/png", False),
        ("", False),
    ],
)
def test_which_types_are_text(content_type, is_text):
    assert is_text_type(content_type) is is_text


BODIES = {
    "NUL": b'{"a":"\x00"}',
    "BOM": b'\xef\xbb\xbf{"a":1}',
    "lone surrogate, escaped": b'{"a":"\\ud800"}',
    "duplicate keys": b'{"a":1,"a":2}',
    "NaN": b'{"a":NaN}',
    "integer of 30 digits": b'{"a":' + b"9" * 30 + b"}",
    "depth 255": b"[" * 255 + b"]" * 255,
    "depth 100,000": b"[" * 100_000,
    "not JSON": b"hello",
    "quotes and breaks": b'"\\\n\r\t',
}


@pytest.mark.parametrize("name", BODIES)
def test_a_json_body_is_the_text_that_was_sent_valid_or_not(name):
    event = event_of(post(BODIES[name]))

    assert event["isBase64Encoded"] is False
    assert event["body"].encode() == BODIES[name]


@pytest.mark.parametrize("body", [b"\xff\xfe", b'{"a":"\xed\xa0\x80"}', "é".encode("latin-1")])
def test_text_that_is_no_utf_8_is_base64(body):
    event = event_of(post(body))

    assert event["isBase64Encoded"] is True
    assert base64.b64decode(event["body"]) == body


@pytest.mark.parametrize("content_type", [b"application/octet-stream", b"application/x-www-form-urlencoded", b""])
def test_other_types_are_base64(content_type):
    event = event_of(post(b"name=Ada", content_type))

    assert (event["isBase64Encoded"], event["body"]) == (True, "bmFtZT1BZGE=")


def test_an_encoded_body_is_passed_as_it_is():
    event = event_of(post(b"\x1f\x8b\x08", b"application/json", (b"content-encoding", b"gzip")))

    assert (event["isBase64Encoded"], event["body"]) == (True, "H4sI")


# --- whatever is sent -------------------------------------------------------------------------------------------------

names = st.binary(max_size=20).map(bytes.lower)


@given(
    path=st.binary(max_size=50),
    query=st.binary(max_size=200),
    headers=st.lists(
        st.tuples(st.one_of(st.sampled_from([b"cookie", b"content-type", b"host"]), names), st.binary(max_size=50)),
        max_size=8,
    ),
    body=st.binary(max_size=300),
    content_type=st.sampled_from([b"application/json", b"text/plain", b"image/png"]),
)
def test_the_event_is_valid_json_and_gives_the_body_back_whatever_was_sent(path, query, headers, body, content_type):
    pairs = [*headers, (b"content-type", content_type)]
    request = HttpRequest(method="POST", path=path, query=query, headers=pairs, body=body)
    raw = http_event(request, origin=ORIGIN, request_id="id", received_at=0.0)
    event = json.loads(raw.decode("utf-8"))

    assert event == orjson.loads(raw)
    text = event.get("body", "")
    assert (base64.b64decode(text) if event["isBase64Encoded"] else text.encode()) == body
    assert event["rawPath"].encode("latin-1") == path
    assert event["rawQueryString"].encode("latin-1") == query
    assert event["headers"].keys() == {name.decode("latin-1") for name, _ in pairs} - {"cookie"}

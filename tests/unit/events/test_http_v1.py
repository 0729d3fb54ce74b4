"""HTTP requests as events of a REST API: the samples reproduced, null members, names as sent, valid JSON whatever comes."""

import base64
import json
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.limits import QUERY_PAIRS_MAX
from bridge.events.http import HttpOrigin, HttpRequest, TooManyParameters
from bridge.events.http_v1 import rest_event
from bridge.events.media import MediaTypes

GOLDEN = Path(__file__).parent / "golden"
ORIGIN = HttpOrigin(account_id="000000000000", api_id="hello")


def event_of(request, *, origin=ORIGIN, binary=()):
    raw = rest_event(request, origin=origin, request_id="id", received_at=1583349317.135, binary=MediaTypes(binary))
    return orjson.loads(raw)


def sent(*headers, body=b"", query=b""):
    """Return a request whose header names are in the case they were sent in, as our listener hands them over."""
    return HttpRequest(
        method="POST",
        path=b"/hooks/hello",
        query=query,
        headers=[(name.lower(), value) for name, value in headers],
        sent_names=[name for name, _ in headers],
        body=body,
        source_ip="127.0.0.1",
    )


# --- samples ----------------------------------------------------------------------------------------------------------

NOT_OURS = ("pathParameters", "stageVariables", "resource", "version")
"""What a route's settings determine on AWS, and ours have not."""
NOT_OF_THE_REQUEST = ("authorizer", "resourceId", "resourcePath", "path", "extendedRequestId", "stage")


@pytest.mark.parametrize(
    "name",
    ["aws-lambda-go/apigw-request.json", "powertools-python/apiGatewayProxyEvent.json", "sam-cli/apigateway-aws-proxy.json"],
)  # fmt: skip
def test_a_sample_comes_out_of_the_request_that_made_it(name):
    sample = json.loads((GOLDEN / name).read_text())
    context = sample["requestContext"]
    user_agent = context["identity"]["userAgent"]
    headers = [(n.encode(), v.encode()) for n, values in sample["multiValueHeaders"].items() for v in values]
    known = {header.lower() for header, _ in headers}
    added = {b"Host": context.get("domainName", "").encode(), b"User-Agent": user_agent.encode()}
    headers += [(header, value) for header, value in added.items() if header.lower() not in known]
    parameters = sample["multiValueQueryStringParameters"]
    body = (sample.get("body") or "").encode()
    is_base64 = sample.get("isBase64Encoded", False)
    request = sent(*headers, body=base64.b64decode(body) if is_base64 else body)._replace(
        method=sample["httpMethod"],
        path=sample["path"].encode(),
        query="&".join(f"{n}={v}" for n, values in parameters.items() for v in values).encode(),
        source_ip=context["identity"]["sourceIp"],
    )
    origin = HttpOrigin(account_id=context["accountId"], api_id=context["apiId"])
    made = orjson.loads(
        rest_event(
            request,
            origin=origin,
            request_id=context["requestId"],
            received_at=context["requestTimeEpoch"] / 1000,
            binary=MediaTypes(["*/*"] if is_base64 else []),
        )
    )

    identity = context["identity"]
    assert {n: v for n, v in made["requestContext"]["identity"].items() if identity.get(n) is None} == {
        n: None for n in made["requestContext"]["identity"] if identity.get(n) is None
    }
    assert made["requestContext"]["identity"]["sourceIp"] == identity["sourceIp"]
    assert made["requestContext"]["identity"]["userAgent"] in (
        identity["userAgent"],
        sample["headers"].get("User-Agent"),
    )
    for key in ("accountId", "apiId", "httpMethod", "requestId", "requestTimeEpoch"):
        assert made["requestContext"][key] == context[key], key
    assert made["requestContext"].keys() | {"authorizer"} >= context.keys()
    for key in ("path", "httpMethod", "isBase64Encoded"):
        assert made[key] == sample.get(key, False), key
    assert made["body"] == sample["body"]
    assert made["multiValueQueryStringParameters"] == parameters
    assert made["queryStringParameters"] == {n: values[-1] for n, values in parameters.items()}
    assert {n: v for n, v in made["multiValueHeaders"].items() if n in sample["multiValueHeaders"]} == sample[
        "multiValueHeaders"
    ]
    assert made["headers"] == {n: values[-1] for n, values in made["multiValueHeaders"].items()}
    assert made.keys() >= sample.keys() - {"version"}


# --- members ----------------------------------------------------------------------------------------------------------


def test_members_without_a_value_are_null_and_not_absent():
    event = event_of(HttpRequest(method="GET", path=b"/"))

    for member in (
        "headers", "multiValueHeaders", "queryStringParameters", "multiValueQueryStringParameters", "pathParameters",
        "stageVariables", "body",
    ):  # fmt: skip
        assert event[member] is None, member
    assert event["isBase64Encoded"] is False
    assert event["requestContext"]["identity"]["userAgent"] is None
    assert event["requestContext"]["identity"]["userArn"] is None
    assert "version" not in event


def test_names_are_in_the_case_they_were_sent_in_and_two_spellings_are_one_header():
    event = event_of(sent((b"Content-Type", b"text/plain"), (b"X-Id", b"1"), (b"x-id", b"2"), (b"ACCEPT", b"*/*")))

    assert event["headers"] == {"Content-Type": "text/plain", "X-Id": "2", "ACCEPT": "*/*"}
    assert event["multiValueHeaders"] == {"Content-Type": ["text/plain"], "X-Id": ["1", "2"], "ACCEPT": ["*/*"]}


def test_where_the_case_is_not_known_names_are_lower_case():
    request = HttpRequest(method="GET", path=b"/", headers=[(b"host", b"example.com:8580")])
    event = event_of(request)
    assert event["headers"] == {"host": "example.com:8580"}
    assert event["requestContext"]["domainName"] == "example.com"
    assert event["requestContext"]["domainPrefix"] == "example"


def test_cookies_stay_a_header():
    assert event_of(sent((b"Cookie", b"a=1; b=2")))["headers"] == {"Cookie": "a=1; b=2"}


def test_a_hidden_header_is_in_neither_member():
    origin = HttpOrigin(account_id="1", api_id="hello", hidden_headers={"authorization"})
    event = event_of(sent((b"Authorization", b"Bearer s"), (b"A", b"b")), origin=origin)
    assert (event["headers"], event["multiValueHeaders"]) == ({"A": "b"}, {"A": ["b"]})
    assert "Bearer" not in json.dumps(event)


def test_the_last_parameter_counts_and_all_are_there():
    event = event_of(sent(query=b"a=1&a=2%20x&b&c=%C3%A9+d"))
    assert event["queryStringParameters"] == {"a": "2 x", "b": "", "c": "é d"}
    assert event["multiValueQueryStringParameters"] == {"a": ["1", "2 x"], "b": [""], "c": ["é d"]}


def test_query_parameters_are_bounded():
    with pytest.raises(TooManyParameters):
        event_of(sent(query=b"&".join([b"a=1"] * (QUERY_PAIRS_MAX + 1))))


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "body", "binary", "is_base64"),
    [
        (b"application/octet-stream", b"text all the same", (), False),
        (b"", b"text", (), False),
        (b"image/png", b"\x89PNG\xff", (), True),
        (b"application/json", b"{}", ("application/json",), True),
        (b"application/json; charset=utf-8", b"{}", ("Application/JSON",), True),
        (b"image/png", b"P", ("image/*",), True),
        (b"text/plain", b"P", ("image/*",), False),
        (b"text/plain", b"P", ("*/*",), True),
        (b"", b"P", ("*/*",), True),
    ],
)
def test_a_body_is_base64_where_its_type_is_declared_binary_or_it_is_no_text(content_type, body, binary, is_base64):
    event = event_of(sent((b"Content-Type", content_type), body=body), binary=binary)
    assert event["isBase64Encoded"] is is_base64
    assert event["body"] == (base64.b64encode(body).decode() if is_base64 else body.decode())


@given(
    path=st.binary(max_size=50),
    query=st.binary(max_size=200),
    headers=st.lists(
        st.tuples(st.one_of(st.sampled_from([b"Cookie", b"Content-Type", b"Host"]), st.binary(max_size=20)), st.binary(max_size=50)),
        max_size=8,
    ),
    body=st.binary(max_size=300),
)  # fmt: skip
def test_the_event_is_valid_json_and_gives_the_body_back_whatever_was_sent(path, query, headers, body):
    request = sent(*headers, body=body, query=query)._replace(path=path)
    raw = rest_event(request, origin=ORIGIN, request_id="id", received_at=0.0, binary=MediaTypes(["image/*"]))
    event = json.loads(raw.decode("utf-8"))

    assert event == orjson.loads(raw)
    text = event["body"] or ""
    assert (base64.b64decode(text) if event["isBase64Encoded"] else text.encode()) == body
    assert event["path"].encode("latin-1") == path
    values = [value for values in (event["multiValueHeaders"] or {}).values() for value in values]
    assert sorted(value.encode("latin-1") for value in values) == sorted(value for _, value in headers)

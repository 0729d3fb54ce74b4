"""What functions return, as answers of a REST API (strict, as recorded) and of a load balancer; what is a 502."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.invocation import InvocationResult, ResultKind
from bridge.core.limits import ALB_MAX_BYTES
from bridge.events.media import MediaTypes
from bridge.events.proxy_responses import ALB_BAD_GATEWAY, REST_BAD_GATEWAY, alb_response, rest_response
from bridge.events.responses import http_response

GOLDEN = Path(__file__).parent / "golden"


def result_of(value, kind=ResultKind.OK):
    payload = value if isinstance(value, bytes) else json.dumps(value).encode()
    return InvocationResult(kind=kind, payload=payload, version="$LATEST")


def rest(value, *binary):
    return rest_response(result_of(value), binary=MediaTypes(binary))


def alb(value, *, multi_value=False):
    return alb_response(result_of(value), multi_value=multi_value)


# --- REST -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        {},
        "hello",
        [],
        [{"statusCode": 200}],
        None,
        7,
        True,
        {"statusCode": 200, "cookies": []},
        {"statusCode": 200, "statusDescription": "200 OK"},
        {"statusCode": "2xx"},
        {"statusCode": None},
        {"statusCode": True},
        {"statusCode": 100},
        {"statusCode": 600},
        {"statusCode": 200, "headers": []},
        {"statusCode": 200, "headers": {"a": {}}},
        {"statusCode": 200, "headers": {"a b": "c"}},
        {"statusCode": 200, "headers": {"a": "b\r\nset-cookie: c"}},
        {"statusCode": 200, "multiValueHeaders": {"a": ["b\nc"]}},
        {"statusCode": 200, "multiValueHeaders": {"a": "b"}},
        {"statusCode": 200, "multiValueHeaders": ["a"]},
        {"statusCode": 200, "body": {"a": 1}},
        {"statusCode": 200, "body": 1},
        b"not json",
    ],
)
def test_what_a_rest_api_does_not_take_is_a_502(value):
    assert rest(value) == REST_BAD_GATEWAY
    assert REST_BAD_GATEWAY.body == b'{"message": "Internal server error"}'


def test_check_31_a_member_too_many_is_a_502_of_a_rest_api_and_fine_with_an_http_api():
    answer = {"statusCode": 200, "body": "hi", "extra": 1}
    assert rest(answer) == REST_BAD_GATEWAY
    response = http_response(json.dumps(answer).encode())
    assert (response.status, response.body) == (200, b"hi")


@pytest.mark.parametrize("kind", [ResultKind.FUNCTION_ERROR, ResultKind.UNKNOWN])
def test_a_function_that_failed_is_a_502(kind):
    result = result_of({"statusCode": 200}, kind)
    assert rest_response(result, binary=MediaTypes()) == REST_BAD_GATEWAY
    assert alb_response(result, multi_value=False) == ALB_BAD_GATEWAY


def test_digits_null_headers_and_booleans_are_fine():
    response = rest({"statusCode": "201", "headers": None, "multiValueHeaders": None, "body": None})
    assert (response.status, response.body) == (201, b"")
    assert response.headers == ((b"content-type", b"application/json"),)
    assert (b"x-on", b"true") in rest({"statusCode": 200, "headers": {"X-On": True}}).headers


def test_headers_alone_are_a_200():
    response = rest({"headers": {"X-A": "1"}})
    assert (response.status, response.body) == (200, b"")
    assert response.headers == ((b"x-a", b"1"), (b"content-type", b"application/json"))


def test_multi_value_headers_come_first_and_a_pair_of_both_once():
    response = rest(
        {
            "statusCode": 200,
            "headers": {"set-cookie": "c=3", "SET-COOKIE": "c=3", "Content-Type": "text/html", "X": "1"},
            "multiValueHeaders": {"Set-Cookie": ["a=1", "b=2"], "x": ["1"]},
        }
    )
    assert response.headers == (
        (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"x", b"1"), (b"set-cookie", b"c=3"), (b"content-type", b"text/html"),
    )  # fmt: skip


def test_base64_comes_off_only_for_a_declared_media_type():
    value = {"statusCode": 200, "headers": {"content-type": "image/png"}, "body": "iVBO", "isBase64Encoded": True}
    assert rest(value).body == b"iVBO"
    assert rest(value, "image/png").body == base64.b64decode("iVBO")
    assert rest(value, "*/*").body == base64.b64decode("iVBO")
    assert rest(value, "image/jpeg").body == b"iVBO"
    assert rest({**value, "isBase64Encoded": False}, "*/*").body == b"iVBO"
    assert rest({**value, "body": "not base64!"}, "*/*") == REST_BAD_GATEWAY


def test_hop_by_hop_headers_are_dropped():
    headers = {
        "Transfer-Encoding": "chunked",
        "Connection": "close, X-Hop",
        "X-Hop": "1",
        "Content-Length": "9",
        "X": "1",
    }
    response = rest({"statusCode": 200, "headers": headers, "multiValueHeaders": {"Keep-Alive": ["a"]}})
    assert response.headers == ((b"x", b"1"), (b"content-type", b"application/json"))
    assert alb({"statusCode": 200, "headers": headers}).headers == (
        (b"x", b"1"),
        (b"content-type", b"application/octet-stream"),
    )


def test_the_sample_of_a_rest_api():
    sample = json.loads((GOLDEN / "aws-lambda-go/apigw-response.json").read_text())
    response = rest(sample)
    assert (response.status, response.body) == (200, b"Hello World")
    expected = {name.lower(): value for name, value in sample["headers"].items()}
    assert {n.decode(): v.decode() for n, v in response.headers} == {**expected, "content-type": "application/json"}
    assert len(response.headers) == len(expected) + 1


def test_204_has_no_body():
    assert rest({"statusCode": 204, "body": "x"}).body == b""


# --- ALB --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"body": "x"},
        "hello",
        [],
        None,
        {"statusCode": "abc"},
        {"statusCode": 99},
        {"statusCode": 101},
        {"statusCode": 200, "statusDescription": 200},
        {"statusCode": 200, "headers": "x"},
        {"statusCode": 200, "headers": {"a": ["b"]}},
        {"statusCode": 200, "headers": {"a": "b\r\nc: d"}},
        {"statusCode": 200, "body": {}},
        {"statusCode": 200, "body": "?", "isBase64Encoded": True},
        b"\xff",
    ],
)
def test_what_a_load_balancer_does_not_take_is_a_502(value):
    assert alb(value) == ALB_BAD_GATEWAY
    assert b"502 Bad Gateway" in ALB_BAD_GATEWAY.body


def test_the_sample_of_a_load_balancer_by_the_target_group_s_setting():
    sample = json.loads((GOLDEN / "aws-lambda-go/alb-lambda-target-response.json").read_text())
    single, many = alb(sample), alb(sample, multi_value=True)
    assert single.body == many.body == b"Hello from Lambda"
    assert single.headers == ((b"set-cookie", b"cookies"), (b"content-type", b"application/json"))
    assert many.headers == (
        (b"set-cookie", b"cookie-name=cookie-value;Domain=myweb.com;Secure;HttpOnly"),
        (b"set-cookie", b"cookie-name=cookie-value;Expires=May 8, 2019"),
        (b"content-type", b"application/json"),
    )


def test_the_other_kind_of_headers_is_not_looked_at():
    assert alb({"statusCode": 200, "multiValueHeaders": "x"}).status == 200
    assert alb({"statusCode": 200, "headers": "x"}, multi_value=True).status == 200
    assert alb({"statusCode": 200, "multiValueHeaders": "x"}, multi_value=True) == ALB_BAD_GATEWAY


def test_what_is_returned_has_a_limit():
    frame = len(json.dumps({"statusCode": 200, "body": ""}))
    fits = "x" * (ALB_MAX_BYTES - frame)
    assert alb({"statusCode": 200, "body": fits}).body == fits.encode()
    assert alb({"statusCode": 200, "body": fits + "x"}) == ALB_BAD_GATEWAY


@given(body=st.binary(max_size=200))
def test_binary_bodies_come_back_whole(body):
    value = {"statusCode": 200, "body": base64.b64encode(body).decode(), "isBase64Encoded": True}
    assert alb(value).body == body
    assert rest(value, "*/*").body == body


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
members = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"), json_values),
)


@given(value=json_values | members | st.builds(lambda value: {**value, "statusCode": 200}, members))
def test_whatever_is_returned_makes_an_answer_that_can_be_sent(value):
    for response in (rest(value, "*/*"), alb(value), alb(value, multi_value=True)):
        assert 200 <= response.status <= 599
        for name, text in response.headers:
            assert name == name.lower()
            assert not {b"\r", b"\n"} & {text[i : i + 1] for i in range(len(text))}

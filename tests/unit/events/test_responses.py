"""What functions return, as HTTP answers: structured, inferred (as recorded on a function URL), and what is a 502."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.invocation import NO_ANSWER, InvocationResult, ResultKind
from bridge.events.responses import BAD_GATEWAY, GATEWAY_TIMEOUT, http_response, result_response

GOLDEN = Path(__file__).parent / "golden"


def answer(value):
    return http_response(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("payload", "body"),
    [
        (b'"hello"', b"hello"),
        (b'"\\u00e9\\n"', "é\n".encode()),
        (b'{"hello": "world"}', b'{"hello":"world"}'),
        (b'{"a": [1, 2.50, {"b c": "d  \\"e"}]}', b'{"a":[1,2.50,{"b c":"d  \\"e"}]}'),
        (b'{"n": 123456789012345678901234567890}', b'{"n":123456789012345678901234567890}'),
        (b"[1, 2]", b"[1,2]"),
        (b"42", b"42"),
        (b"true", b"true"),
        (b"null", b"null"),
        (b"{}", b"{}"),
        (b'{"headers": {"a": "b"}}', b'{"headers":{"a":"b"}}'),
    ],
)
def test_anything_without_a_status_is_the_body_of_a_200(payload, body):
    response = http_response(payload)

    assert (response.status, response.body) == (200, body)
    assert response.headers == ((b"content-type", b"application/json"),)


def test_the_sample():
    response = http_response((GOLDEN / "aws-lambda-go/lambda-urls-response.json").read_bytes())

    assert response.status == 201
    assert response.body == b'{ "message": "Hello, world!" }'
    assert response.headers == (
        (b"content-type", b"application/json"),
        (b"my-custom-header", b"Custom Value"),
        (b"set-cookie", b"Cookie_1=Value1; Expires=21 Oct 2021 07:48 GMT"),
        (b"set-cookie", b"Cookie_2=Value2; Max-Age=78000"),
    )


def test_the_content_type_of_a_structured_answer_is_json_unless_it_says_otherwise():
    assert answer({"statusCode": 200}).headers == ((b"content-type", b"application/json"),)
    said = answer({"statusCode": 200, "headers": {"Content-Type": "text/html"}})
    assert said.headers == ((b"content-type", b"text/html"),)


def test_base64_bodies_are_decoded():
    assert answer({"statusCode": 200, "body": "aGk=", "isBase64Encoded": True}).body == b"hi"
    assert answer({"statusCode": 200, "body": "aGk=", "isBase64Encoded": False}).body == b"aGk="
    assert answer({"statusCode": 200, "body": "aGk="}).body == b"aGk="


@pytest.mark.parametrize(("body", "sent"), [(None, b""), ("", b""), ({"a": 1}, b'{"a":1}'), ([1], b"[1]"), (7, b"7")])
def test_bodies_that_are_not_text_are_json(body, sent):
    assert answer({"statusCode": 200, "body": body}).body == sent


@pytest.mark.parametrize(("status", "sent"), [(200, 200), ("201", 201), (599, 599), (404, 404)])
def test_statuses(status, sent):
    assert answer({"statusCode": status, "body": "x"}).status == sent


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(status):
    assert answer({"statusCode": status, "body": "x"}).body == b""


def test_hop_by_hop_headers_are_dropped_and_so_is_what_only_the_server_knows():
    headers = {"Connection": "keep-alive, X-Hop", "X-Hop": "1", "Transfer-Encoding": "chunked", "Content-Length": "9",
               "Date": "today", "TE": "x", "Upgrade": "x", "X-Kept": "1"}  # fmt: skip
    response = answer({"statusCode": 200, "headers": headers})

    assert response.headers == ((b"x-kept", b"1"), (b"content-type", b"application/json"))


def test_header_values_that_are_not_text():
    headers = {"a": 1, "b": True, "c": None, "d": 1.5, "e": "é"}
    response = answer({"statusCode": 200, "headers": headers})

    assert response.headers[:-1] == ((b"a", b"1"), (b"b", b"true"), (b"d", b"1.5"), (b"e", "é".encode()))


@pytest.mark.parametrize(
    "value",
    [
        {"statusCode": 99},
        {"statusCode": 100},
        {"statusCode": 600},
        {"statusCode": -1},
        {"statusCode": "2xx"},
        {"statusCode": ""},
        {"statusCode": "²"},
        {"statusCode": "99999999999"},
        {"statusCode": 200.0},
        {"statusCode": True},
        {"statusCode": None},
        {"statusCode": {}},
        {"statusCode": 200, "headers": {"a": "b\r\nset-cookie: c"}},
        {"statusCode": 200, "headers": {"a": "b\n"}},
        {"statusCode": 200, "headers": {"a": "\x00"}},
        {"statusCode": 200, "headers": {"a b": "c"}},
        {"statusCode": 200, "headers": {"a\r\nb": "c"}},
        {"statusCode": 200, "headers": {"": "c"}},
        {"statusCode": 200, "headers": {"a": ["b"]}},
        {"statusCode": 200, "headers": ["a"]},
        {"statusCode": 200, "cookies": "a=b"},
        {"statusCode": 200, "cookies": ["a=b\r\nx: y"]},
        {"statusCode": 200, "cookies": [{}]},
        {"statusCode": 200, "body": "not base64!", "isBase64Encoded": True},
    ],
)
def test_what_cannot_be_sent_is_a_502(value):
    assert answer(value) == BAD_GATEWAY


@pytest.mark.parametrize("payload", [b"", b"NaN", b'{"a":', b"\xff", b'"\\ud800"', b"[" * 2000])
def test_what_is_no_json_is_a_502(payload):
    assert http_response(payload) == BAD_GATEWAY


def test_a_body_that_is_nested_too_deep_to_be_written_is_a_502():
    payload = b'{"statusCode":200,"body":' + b"[" * 300 + b"]" * 300 + b"}"

    assert http_response(payload) == BAD_GATEWAY


@pytest.mark.parametrize("kind", [ResultKind.FUNCTION_ERROR, ResultKind.UNKNOWN])
def test_a_function_error_says_nothing_of_the_error(kind):
    result = InvocationResult(kind=kind, payload=b'{"errorMessage":"secret"}', version="$LATEST")

    assert result_response(result) == BAD_GATEWAY
    assert json.loads(BAD_GATEWAY.body) == {"message": "Internal Server Error"}


def test_an_answer_that_did_not_come_in_time_is_504():
    result = InvocationResult(kind=ResultKind.UNKNOWN, payload=b"", version="", error_type=NO_ANSWER)

    assert result_response(result) == GATEWAY_TIMEOUT


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=12,
)


@given(json_values, st.sampled_from([None, 1]))
def test_an_inferred_body_is_the_same_json_without_white_space(value, indent):
    if isinstance(value, str) or (isinstance(value, dict) and "statusCode" in value):
        return
    response = http_response(json.dumps(value, indent=indent).encode())

    assert response.body == json.dumps(value, separators=(",", ":")).encode()


optional = dict.fromkeys(("headers", "cookies", "body", "isBase64Encoded"), json_values)


@given(st.fixed_dictionaries({"statusCode": json_values}, optional=optional))
def test_any_structured_answer_can_be_sent_or_is_a_502(value):
    response = answer(value)

    assert 200 <= response.status <= 599
    for name, item in response.headers:
        assert not set(b"\r\n\x00") & set(name + item)

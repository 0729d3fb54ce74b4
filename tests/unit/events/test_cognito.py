"""Triggers of Cognito user pools: the returned event is the answer, failures are in the user pool's words."""

import json
from pathlib import Path

import pytest

from bridge.core.invocation import InvocationResult, ResultKind
from bridge.events.bodies import Unreadable
from bridge.events.cognito import check_trigger, cognito_response, cognito_timeout

GOLDEN = Path(__file__).parent / "golden"
SAMPLES = [
    "aws-lambda-go/cognito-event-userpools-presignup.json",
    "aws-lambda-go/cognito-event-userpools-postconfirmation.json",
    "powertools-python/cognitoPreSignUpEvent.json",
]
EVENT = json.loads((GOLDEN / SAMPLES[-1]).read_text())


def result_of(payload, kind=ResultKind.OK, **more):
    return InvocationResult(kind=kind, payload=payload, version="$LATEST", **more)


def failure(response):
    assert response.status == 400
    assert response.headers == ((b"content-type", b"application/json"),)
    return json.loads(response.body)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_a_trigger_and_what_is_returned_is_the_answer(name):
    event = json.loads((GOLDEN / name).read_text())
    check_trigger(json.dumps(event).encode())
    returned = json.dumps({**event, "response": {"autoConfirmUser": True}}).encode()
    response = cognito_response(result_of(returned), event=event)
    assert (response.status, response.body) == (200, returned)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ([], "no JSON object"),
        ("x", "no JSON object"),
        ({}, "triggerSource is missing"),
        ({**EVENT, "triggerSource": ""}, "triggerSource is empty"),
        ({**EVENT, "userPoolId": 7}, "userPoolId is no text"),
        ({**EVENT, "request": None}, "request is no JSON object"),
        ({**EVENT, "response": []}, "response is no JSON object"),
    ],
)
def test_what_is_no_trigger_says_what_is_missing(event, text):
    with pytest.raises(Unreadable, match=text):
        check_trigger(json.dumps(event).encode())


@pytest.mark.parametrize("payload", [b"null", b"{}", b"NaN", b'"ok"', b'{"response": null}', b'[{"response": {}}]'])
def test_what_is_no_event_is_unrecognizable(payload):
    assert failure(cognito_response(result_of(payload), event=EVENT)) == {
        "__type": "InvalidLambdaResponseException",
        "message": "Unrecognizable lambda output",
    }


def test_a_raise_is_a_validation_s_failure():
    result = result_of(b"{}", ResultKind.FUNCTION_ERROR, error_message="only company addresses")
    assert failure(cognito_response(result, event=EVENT)) == {
        "__type": "UserLambdaValidationException",
        "message": "PreSignUp failed with error only company addresses.",
    }


def test_an_unknown_end_and_a_timeout_are_unexpected():
    assert failure(cognito_response(result_of(b"", ResultKind.UNKNOWN), event=EVENT)) == {
        "__type": "UnexpectedLambdaException",
        "message": "PreSignUp invocation failed due to error ServiceException.",
    }
    assert failure(cognito_timeout(EVENT)) == {
        "__type": "UnexpectedLambdaException",
        "message": "PreSignUp invocation failed due to error Socket timeout while invoking Lambda function.",
    }

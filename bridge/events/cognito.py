"""Triggers of a Cognito user pool: what one must look like, and the answer for what its function returned.

docs.aws.amazon.com/cognito/latest/developerguide/cognito-user-pools-working-with-lambda-triggers.html: the function
returns the event with `response` filled. Failures are worded as the user pool's api words them (recorded), status 400.
"""

from typing import Any

import orjson

from bridge.core.invocation import InvocationResult, ResultKind
from bridge.events.bodies import needed_object, needed_text, read_object
from bridge.events.responses import HttpResponse


def check_trigger(body: bytes) -> None:
    """Check what all triggers have in common.

    Raises:
        Unreadable: the body is no JSON, or something of a trigger is missing.
    """
    event = read_object(body)
    needed_text(event, "triggerSource")
    needed_text(event, "userPoolId")
    for name in ("request", "response"):
        needed_object(event.get(name), name)


def cognito_response(result: InvocationResult, *, event: dict[str, Any]) -> HttpResponse:
    """Return the returned event, or how the user pool says that there is none.

    Args:
        result: how the invocation ended.
        event: what the function was given.
    """
    trigger = trigger_of(event)
    if result.kind is ResultKind.FUNCTION_ERROR:
        return _failed("UserLambdaValidationException", f"{trigger} failed with error {result.error_message}.")
    if result.is_late:
        return cognito_timeout(event)
    if not result.is_ok:
        return _failed("UnexpectedLambdaException", f"{trigger} invocation failed due to error ServiceException.")
    try:
        returned = orjson.loads(result.payload)
    except orjson.JSONDecodeError:
        returned = None
    if not isinstance(returned, dict) or not isinstance(returned.get("response"), dict):
        return _failed("InvalidLambdaResponseException", "Unrecognizable lambda output")
    return HttpResponse(status=200, body=result.payload)


def cognito_timeout(event: dict[str, Any]) -> HttpResponse:
    """Return the answer when the function took longer than `limits.COGNITO_ANSWER_MAX_S`."""
    text = f"{trigger_of(event)} invocation failed due to error Socket timeout while invoking Lambda function."
    return _failed("UnexpectedLambdaException", text)


def trigger_of(event: dict[str, Any]) -> str:
    """Return the trigger as messages name it: `PreSignUp` of `PreSignUp_SignUp`."""
    return str(event["triggerSource"]).partition("_")[0]


def _failed(code: str, message: str) -> HttpResponse:
    return HttpResponse(status=400, body=orjson.dumps({"__type": code, "message": message}))

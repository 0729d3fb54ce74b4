"""Sample events of HTTP requests, and of those whose body is the event: Cognito's triggers, Alexa's requests.

HTTP events are made by the code that makes real ones (`events/http.py`, `http_v1.py`, `alb.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote_plus

import orjson

from bridge.events.alb import alb_event, target_group_arn
from bridge.events.http import HttpOrigin, HttpRequest, http_event
from bridge.events.http_v1 import rest_event
from bridge.events.media import MediaTypes

_ORIGIN: Final = HttpOrigin(account_id="anonymous", api_id="webhook", domain_name="webhook.lambda-url.local.on.aws")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRequest:
    """A request as a person describes it."""

    method: str = "POST"
    path: str = "/"
    """Percent-encoded, as sent."""
    query: Sequence[tuple[str, str]] = ()
    """Decoded; encoded for the event."""
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    source_ip: str = "127.0.0.1"


def webhook_event(request: WebhookRequest, *, request_id: str, received_at: float) -> bytes:
    """Return the API Gateway v2 event of a request, with the headers that every client sends.

    Args:
        request: what differs from one request to the next.
        request_id: `requestContext.requestId`.
        received_at: wall clock, epoch seconds.

    Raises:
        http.TooManyParameters: the query has too many pairs.
    """
    made = _sent(request, domain=_ORIGIN.domain_name)
    return http_event(made, origin=_ORIGIN, request_id=request_id, received_at=received_at)


def rest_webhook_event(
    request: WebhookRequest, *, request_id: str, received_at: float, account_id: str, region: str, binary: Sequence[str]
) -> bytes:
    """Return a REST API's event of a request, likewise.

    Args:
        request: what differs from one request to the next.
        request_id: `requestContext.requestId`.
        received_at: wall clock, epoch seconds.
        account_id: `requestContext.accountId`.
        region: part of the host.
        binary: media types that are base64.

    Raises:
        http.TooManyParameters: the query has too many pairs.
    """
    origin = HttpOrigin(
        account_id=account_id, api_id="webhook", domain_name=f"webhook.execute-api.{region}.amazonaws.com"
    )
    made = _sent(request, domain=origin.domain_name)
    return rest_event(made, origin=origin, request_id=request_id, received_at=received_at, binary=MediaTypes(binary))


def alb_webhook_event(
    request: WebhookRequest, *, request_id: str, received_at: float, account_id: str, region: str, multi_value: bool
) -> bytes:
    """Return a load balancer's event of a request, likewise.

    Args:
        request: what differs from one request to the next.
        request_id: what the trace id is made of.
        received_at: wall clock, epoch seconds.
        account_id: the target group's.
        region: the target group's.
        multi_value: see `alb.alb_event`.

    Raises:
        http.TooManyParameters: the query has too many pairs.
    """
    return alb_event(
        _sent(request, domain=f"webhook-1234567890.{region}.elb.amazonaws.com"),
        target_group=target_group_arn("webhook", region=region, account_id=account_id),
        request_id=request_id,
        received_at=received_at,
        multi_value=multi_value,
    )


def _sent(request: WebhookRequest, *, domain: str) -> HttpRequest:
    """Return the request as a client would have sent it."""
    headers = [(_header(name), _header(value)) for name, value in request.headers]
    names = {name.lower() for name, _ in headers}
    usual = [(b"Host", domain.encode()), (b"User-Agent", b"bridge")]
    if request.body:
        usual += [(b"Content-Type", _content_type(request.body)), (b"Content-Length", b"%d" % len(request.body))]
    sent = [pair for pair in usual if pair[0].lower() not in names] + headers
    query = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in request.query)
    return HttpRequest(
        method=request.method,
        path=request.path.encode(),
        query=query.encode(),
        headers=[(name.lower(), value) for name, value in sent],
        sent_names=[name for name, _ in sent],
        body=request.body,
        source_ip=request.source_ip,
        scheme="https",
    )


def _content_type(body: bytes) -> bytes:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    else:
        return b"application/json"
    try:
        body.decode()
    except UnicodeDecodeError:
        return b"application/octet-stream"
    return b"text/plain; charset=utf-8"


def _header(text: str) -> bytes:
    """Return header text as bytes: the event gives each back as the character of its number, as on the wire."""
    return text.encode("latin-1") if all(ord(character) < 256 for character in text) else text.encode()


# --- events that are bodies -----------------------------------------------------------------------------------------

_Members = tuple[dict[str, Any], dict[str, Any]]
_PRE_SIGN_UP: Final[_Members] = (
    {"validationData": None, "clientMetadata": None},
    {"autoConfirmUser": False, "autoVerifyEmail": False, "autoVerifyPhone": False},
)
_CUSTOM_MESSAGE: Final[_Members] = (
    {"codeParameter": "{####}", "linkParameter": "{##Click Here##}", "usernameParameter": None, "clientMetadata": None},
    {"smsMessage": None, "emailMessage": None, "emailSubject": None},
)
_TOKENS: Final[_Members] = (
    {
        "groupConfiguration": {"groupsToOverride": [], "iamRolesToOverride": [], "preferredRole": None},
        "clientMetadata": None,
    },
    {"claimsOverrideDetails": None},
)
_AFTER: Final[_Members] = ({"clientMetadata": None}, {})
TRIGGERS: Final[Mapping[str, _Members]] = {
    "PreSignUp_SignUp": _PRE_SIGN_UP,
    "PreSignUp_AdminCreateUser": _PRE_SIGN_UP,
    "PreSignUp_ExternalProvider": _PRE_SIGN_UP,
    "PostConfirmation_ConfirmSignUp": _AFTER,
    "PostConfirmation_ConfirmForgotPassword": _AFTER,
    "PreAuthentication_Authentication": ({"validationData": None, "userNotFound": False}, {}),
    "PostAuthentication_Authentication": ({"newDeviceUsed": False, "clientMetadata": None}, {}),
    "CustomMessage_SignUp": _CUSTOM_MESSAGE,
    "CustomMessage_AdminCreateUser": _CUSTOM_MESSAGE,
    "CustomMessage_ResendCode": _CUSTOM_MESSAGE,
    "CustomMessage_ForgotPassword": _CUSTOM_MESSAGE,
    "TokenGeneration_HostedAuth": _TOKENS,
    "TokenGeneration_Authentication": _TOKENS,
    "TokenGeneration_RefreshTokens": _TOKENS,
    "DefineAuthChallenge_Authentication": (
        {"session": [], "userNotFound": False, "clientMetadata": None},
        {"challengeName": None, "issueTokens": None, "failAuthentication": None},
    ),
    "CreateAuthChallenge_Authentication": (
        {"challengeName": "CUSTOM_CHALLENGE", "session": [], "userNotFound": False, "clientMetadata": None},
        {"publicChallengeParameters": None, "privateChallengeParameters": None, "challengeMetadata": None},
    ),
    "VerifyAuthChallengeResponse_Authentication": (
        {"privateChallengeParameters": {"answer": "42"}, "challengeAnswer": "42", "userNotFound": False},
        {"answerCorrect": None},
    ),
}
"""Members of `request` besides the user's attributes, and of `response`, by `triggerSource`."""


def cognito_event(
    trigger: str, *, attributes: Sequence[tuple[str, str]], user_name: str, user_pool_id: str, client_id: str
) -> bytes:
    """Return the event of a user pool's trigger.

    Args:
        trigger: a key of `TRIGGERS`.
        attributes: the user's.
        user_name: who.
        user_pool_id: `REGION_…`: it says the region.
        client_id: of the app.
    """
    request, response = TRIGGERS[trigger]
    event = {
        "version": "1",
        "triggerSource": trigger,
        "region": user_pool_id.partition("_")[0],
        "userPoolId": user_pool_id,
        "userName": user_name,
        "callerContext": {"awsSdkVersion": "aws-sdk-unknown-unknown", "clientId": client_id},
        "request": {"userAttributes": dict(attributes), **request},
        "response": response,
    }
    return orjson.dumps(event)


def alexa_event(
    *, intent: str, slots: Sequence[tuple[str, str]], skill_id: str, locale: str, request_id: str, time: str
) -> bytes:
    """Return the request of a custom skill.

    Args:
        intent: its name; empty for a launch without one.
        slots: names and values.
        skill_id: `amzn1.ask.skill.…`.
        locale: such as `en-US`.
        request_id: what the request's id ends with.
        time: ISO 8601, UTC, seconds.
    """
    application = {"applicationId": skill_id}
    user = {"userId": "amzn1.ask.account.EXAMPLE"}
    request: dict[str, Any] = {
        "type": "IntentRequest" if intent else "LaunchRequest",
        "requestId": f"amzn1.echo-api.request.{request_id}",
        "timestamp": time,
        "locale": locale,
    }
    if intent:
        named = {name: {"name": name, "value": value, "confirmationStatus": "NONE"} for name, value in slots}
        request["intent"] = {"name": intent, "confirmationStatus": "NONE", "slots": named}
    session = {
        "new": True,
        "sessionId": "amzn1.echo-api.session.EXAMPLE",
        "application": application,
        "attributes": {},
        "user": user,
    }
    system = {"application": application, "user": user, "device": {"deviceId": "EXAMPLE", "supportedInterfaces": {}}}
    event = {"version": "1.0", "session": session, "context": {"System": system}, "request": request}
    return orjson.dumps(event)

"""Function URLs on the public listener: finds the one of a request, asks who may, invokes, answers as Lambda does.

docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html and urls-auth.html. A request is a function URL's by its Host
(`ID.lambda-url.REGION.DOMAIN`) or by its path (`/lambda-url/ID/…`); all others are the webhooks'.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson
import structlog

from bridge.core import limits
from bridge.core.errors import FunctionNotFound, InvokeError, StoreError, Throttled
from bridge.core.invocation import InvocationType
from bridge.core.ports import Clock, Intake, Invoker
from bridge.core.record import Record
from bridge.events.cors import Headers, answer_headers, is_preflight, preflight_headers
from bridge.events.http import HttpOrigin, HttpRequest, TooManyParameters, domain_of, http_event
from bridge.events.responses import BAD_GATEWAY, result_response
from bridge.registry.access import AccessKey, Caller, with_token
from bridge.registry.policies import ResourcePolicies, caller_keys
from bridge.registry.roles import Role
from bridge.registry.sigv4 import UNKNOWN_CALLER, SignatureRefused, SignedRequest, check_signature, is_signed
from bridge.registry.statements import INVOKE, INVOKE_URL, URL_AUTH_TYPE, VIA_URL, Question
from bridge.registry.urls import OPEN, FunctionUrl, FunctionUrls
from bridge.sources.push.refusals import RETRY_AFTER_S, retry_after
from bridge.sources.push.webhook import WebhookSource
from bridge.util import telemetry
from bridge.util.asgi import (
    CLOSE,
    JSON_TYPE,
    BodyTooLarge,
    ClientGone,
    Receive,
    Scope,
    Send,
    read_body,
    respond,
)
from bridge.util.ids import new_id

log = structlog.get_logger("bridge.urls")

SOURCE: Final = "lambda-url"
"""Source of the events, which no `[sources.X]` has: they are kept for replay."""
PATH_PREFIX: Final = b"/lambda-url/"
_LABEL: Final = ".lambda-url."
_NEVER: Final = frozenset({"TRACE", "CONNECT"})
_HIDDEN: Final = frozenset({"authorization", "x-amz-security-token"})
_FORBIDDEN: Final = (
    "Forbidden. For troubleshooting Function URL authorization issues, see: "
    "https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"
)


class UrlRefused(Exception):
    """Ends a request with a status and one JSON object."""

    def __init__(self, status: int, body: Mapping[str, Any], *, reason: str, headers: Headers = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.body = body
        self.reason = reason
        self.headers = headers


class FunctionUrlApp:
    """An ASGI application over all function URLs, and over the webhooks for all other requests.

    Args:
        webhooks: gets what is no function URL's; knows the proxies, and when nothing new is taken.
        urls: the function URLs.
        policies: asked on every request.
        keys: returns an access key that requests may be signed with by its id, a function's own too.
        role_of: returns the role that such a key acts as, by its ARN; None: there are none.
        intake: keeps events for replay.
        invoker: runs them.
        clock: times of events.
        domain: what follows the region in the Host of a function URL.
    """

    def __init__(
        self,
        webhooks: WebhookSource,
        *,
        urls: FunctionUrls,
        policies: ResourcePolicies,
        keys: Callable[[str], AccessKey | None],
        role_of: Callable[[str], Role] | None = None,
        intake: Intake,
        invoker: Invoker,
        clock: Clock,
        domain: str,
    ) -> None:
        self._webhooks = webhooks
        self._urls = urls
        self._policies = policies
        self._keys = keys
        self._role_of = role_of
        self._intake = intake
        self._invoker = invoker
        self._clock = clock
        self._domain = domain
        self._accepted = telemetry.EVENTS_ACCEPTED.labels(source=SOURCE, type=InvocationType.REQUEST_RESPONSE.value)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3, HTTP only)."""
        if scope["type"] != "http" or (named := self._named(scope)) is None:
            await self._webhooks(scope, receive, send)
            return
        url_id, path = named
        url = self._urls.find(url_id)
        cors = url.cors if url is not None else None
        headers: Headers
        try:
            if self._webhooks.is_draining:
                busy = (retry_after(RETRY_AFTER_S), CLOSE)
                raise UrlRefused(503, {"Message": "Service Unavailable"}, reason="draining", headers=busy)
            if url is None:
                raise UrlRefused(404, {"Message": None}, reason="unknown path")
            if cors and is_preflight(scope["method"], scope["headers"]):
                await respond(send, 200, b"", preflight_headers(cors, scope["headers"]))
                return
            request = await self._receive(scope, receive)
            status, headers, body = await self._invoke(url, request, path)
        except UrlRefused as refusal:
            telemetry.EVENTS_REFUSED.labels(source=SOURCE, reason=refusal.reason).inc()
            status, headers = refusal.status, (JSON_TYPE, *refusal.headers)
            body = orjson.dumps(refusal.body, option=orjson.OPT_APPEND_NEWLINE)
        except ClientGone:
            return
        await respond(send, status, body, answer_headers(cors, scope["headers"], headers) if cors else headers)

    def _named(self, scope: Scope) -> tuple[str, bytes] | None:
        """Return the id that a request names, and its path behind that; None: it is no function URL's."""
        path: bytes = scope["raw_path"]
        if path.startswith(PATH_PREFIX):
            url_id, slash, rest = path[len(PATH_PREFIX) :].partition(b"/")
            return url_id.decode("latin-1"), slash + rest or b"/"
        if self._urls:
            for name, value in scope["headers"]:
                if name == b"host" and _LABEL in (host := domain_of(value.decode("latin-1").lower())):
                    label, _, after = host.partition(_LABEL)
                    return (label, path) if after.partition(".")[2] == self._domain else None
        return None

    async def _receive(self, scope: Scope, receive: Receive) -> HttpRequest:
        headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        if scope["method"] in _NEVER:
            raise UrlRefused(405, {"Message": None}, reason="method")
        try:
            body = await read_body(receive, limit=limits.SYNC_PAYLOAD_MAX_BYTES, headers=headers)
        except BodyTooLarge:
            raise _too_large() from None
        return self._webhooks.request_of(scope, body)

    # --- who may ------------------------------------------------------------------------------------------------

    def _authorised(self, url: FunctionUrl, request: HttpRequest) -> HttpOrigin:
        """Return what the event says of where it comes from, once it is known that its sender may.

        Since October 2025 both actions are asked for: to call the URL, and to invoke the function by it.
        """
        domain = f"{url.id}.lambda-url.{url.region}.{self._domain}"
        origin = HttpOrigin(account_id="anonymous", api_id=url.id, domain_name=domain, is_named=True)
        keys = {URL_AUTH_TYPE: url.auth_type, VIA_URL: "true"}
        if url.auth_type == OPEN:
            if all(self._policies.allows(url.place, Question(action=each, keys=keys)) for each in (INVOKE_URL, INVOKE)):
                return origin
            raise _forbidden()
        caller = self._signer(url, request)
        keys |= caller_keys(caller)
        for action in (INVOKE_URL, INVOKE):
            role = "" if caller.role is None else caller.role.arn
            question = Question(action=action, account=caller.account, arn=caller.arn, role=role, keys=keys)
            if self._policies.refusing(url.place, caller, question):
                raise _forbidden()
        return replace(origin, account_id=caller.account, authorizer=_iam(caller), hidden_headers=_HIDDEN)

    def _signer(self, url: FunctionUrl, request: HttpRequest) -> Caller:
        headers: dict[str, list[str]] = {}
        for name, value in request.headers:
            headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        if not is_signed(headers):
            raise _forbidden()
        signed = SignedRequest(
            method=request.method,
            path=request.path.decode("latin-1"),
            query=request.query.decode("latin-1"),
            headers=headers,
            body_hash=hashlib.sha256(request.body).hexdigest(),
        )
        try:
            signer = check_signature(signed, secret_of=self._secret, now=self._clock.stepped())
            key = with_token(self._keys(signer.key_id), headers)
            role = self._role_of(key.role) if key.role and self._role_of is not None else None
            if key.role and (role is None or not role.is_known):  # it has left the file since
                raise SignatureRefused("UnrecognizedClientException", UNKNOWN_CALLER)
        except SignatureRefused as error:
            raise UrlRefused(403, {"message": str(error)}, reason="signature") from error
        if signer.region != url.region:
            text = f"Credential should be scoped to a valid region, not '{signer.region[:40]}'. "
            raise UrlRefused(403, {"message": text}, reason="signature")
        return Caller(
            account=key.account,
            region=signer.region,
            key_id=key.id,
            allow=() if role is not None else key.allow,
            organization=key.organization,
            role=role,
            session=key.session,
        )

    def _secret(self, key_id: str) -> str | None:
        key = self._keys(key_id)
        return None if key is None else key.secret

    # --- what runs ----------------------------------------------------------------------------------------------

    async def _invoke(self, url: FunctionUrl, request: HttpRequest, path: bytes) -> tuple[int, Headers, bytes]:
        origin = self._authorised(url, request)
        target = self._urls.target(url)
        request_id, received_at = new_id(), round(self._clock.time(), 3)
        try:
            payload = http_event(
                request._replace(path=path), origin=origin, request_id=request_id, received_at=received_at
            )
        except TooManyParameters as error:
            raise UrlRefused(400, {"Message": str(error)}, reason="query") from error
        if len(payload) > limits.SYNC_PAYLOAD_MAX_BYTES:
            raise _too_large()
        record = Record(
            id=request_id,
            source=SOURCE,
            function=target,
            invocation_type=InvocationType.REQUEST_RESPONSE,
            received_at=received_at,
            payload=payload,
        )
        named = (b"x-amzn-requestid", request_id.encode("ascii"))
        try:
            self._intake.archive(record)
            result = await self._invoker.invoke(target, request_id=request_id, payload=payload)
        except Throttled as error:
            body = {"Reason": error.reason, "Type": "User", "message": str(error)}
            headers = (retry_after(error.retry_after_s), named)
            raise UrlRefused(429, body, reason="throttled", headers=headers) from error
        except (InvokeError, StoreError) as error:
            if isinstance(error, FunctionNotFound):
                raise UrlRefused(404, {"Message": None}, reason="no function", headers=(named,)) from error
            # Anybody may be asking: what is wrong here is for the log.
            log.warning("function_url_failed", url=url.id, function=target, error=str(error))
            return BAD_GATEWAY.status, (*BAD_GATEWAY.headers, named), BAD_GATEWAY.body
        self._accepted.inc()
        response = result_response(result)
        return response.status, (*response.headers, named), response.body


def _iam(caller: Caller) -> dict[str, Any]:
    identity = {
        "accessKey": caller.key_id,
        "accountId": caller.account,
        "callerId": caller.key_id,
        "cognitoIdentity": None,
        "principalOrgId": caller.organization or None,
        "userArn": caller.arn,
        "userId": caller.key_id,
    }
    return {"iam": identity}


def _forbidden() -> UrlRefused:
    headers = ((b"x-amzn-errortype", b"AccessDeniedException"),)
    return UrlRefused(403, {"Message": _FORBIDDEN}, reason="policy", headers=headers)


def _too_large() -> UrlRefused:
    text = f"Request must be smaller than {limits.SYNC_PAYLOAD_MAX_BYTES} bytes for the InvokeFunction operation"
    return UrlRefused(413, {"Message": text}, reason="too large")

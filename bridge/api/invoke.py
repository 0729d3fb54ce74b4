"""`POST invoke/{target}`: RequestResponse, Event and DryRun with AWS's headers, statuses and error bodies."""

import base64
import binascii
import contextlib
from collections.abc import Callable
from typing import Final

import orjson

from bridge.api.awslambda.errors import Refused
from bridge.api.fields import Fields
from bridge.api.http import Answer, HttpError, Request, TooLarge
from bridge.api.services import Services
from bridge.core import limits
from bridge.core.errors import (
    FunctionNotFound,
    InvokeError,
    LaneFull,
    PayloadTooLarge,
    RecursiveInvocation,
    StoreFull,
    Throttled,
)
from bridge.core.function import TARGET_MAX_CHARS, space_name
from bridge.core.invocation import Condition, InvocationResult, InvocationType, ResultKind
from bridge.core.record import Record
from bridge.events.bodies import is_too_deep
from bridge.invokers.service import checked_payload
from bridge.util.ids import new_id
from bridge.util.quick import maker

SOURCE: Final = "invoke"
_LOG_TYPES: Final = ("None", "Tail")
_KINDS: Final = tuple(kind.value for kind in InvocationType)


_record: Final = maker(Record)


class InvokeEndpoint:
    """Handler of `/admin/v1/invoke/{target}`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def invoke(self, request: Request) -> Answer:
        """Do what `X-Amz-Invocation-Type` says and answer as API_Invoke does."""
        fields = Fields.of_query(request)
        qualifier = fields.text("Qualifier")
        fields.finish()
        target = self._own(_target(request.params["target"], qualifier))
        return await self.answer(request, new_id(), lambda _: target)

    def _own(self, target: str) -> str:
        """Return a target as it is called here, where its name space is written out and is the file's."""
        name, colon, qualifier = target.partition(":")
        if space_name(name):
            with contextlib.suppress(FunctionNotFound):  # told when it is invoked
                name = self._services.function(name).name
        return name + colon + qualifier

    async def answer(self, request: Request, request_id: str, target_of: Callable[[bytes], str]) -> Answer:
        """Answer as API_Invoke does; `target_of` is asked with the body, and may refuse by raising what it likes."""
        try:
            return await self._invoke(request, request_id, target_of)
        except InvokeError as error:
            return _refusal(error, request_id)
        except (LaneFull, StoreFull) as error:
            return _error(503, "ServiceException", str(error), request_id, kind="Service", headers={"retry-after": "1"})
        except _Invalid as error:
            return _error(400, error.code, str(error), request_id, kind=error.kind)

    async def _invoke(self, request: Request, request_id: str, target_of: Callable[[bytes], str]) -> Answer:
        kind = InvocationType(
            _enum(request, "x-amz-invocation-type", "invocationType", _KINDS, InvocationType.REQUEST_RESPONSE.value)
        )
        with_log = _enum(request, "x-amz-log-type", "logType", _LOG_TYPES, "None") == "Tail"
        context = _client_context(request.header("x-amz-client-context"))
        is_event = kind is InvocationType.EVENT
        max_bytes = self._services.async_payload_max_bytes if is_event else limits.SYNC_PAYLOAD_MAX_BYTES
        try:
            body = await request.body(max_bytes)
        except TooLarge as error:
            text = f"{error.size} byte payload is too large for the {kind} invocation type (limit {max_bytes} bytes)"
            raise PayloadTooLarge(text) from error
        target = target_of(body)
        payload = checked_payload(body, max_bytes=max_bytes, kind=kind)
        _check_depth(payload)
        headers = {"x-amzn-requestid": request_id}
        trace = request.header("x-amzn-trace-id")
        if kind is not InvocationType.REQUEST_RESPONSE or trace:  # else `invoke` says the same a moment later
            self._services.invoker.dry_run(target)
        if kind is InvocationType.DRY_RUN:
            return Answer(204, headers=headers)
        record = _record(
            id=request_id,
            source=SOURCE,
            function=target,
            invocation_type=kind,
            received_at=round(self._services.clock.time(), 3),
            payload=payload,
            client_context=b"" if is_event else context,  # for synchronous calls only (semantics 1.1)
        )
        if is_event:
            await self._accept(record, trace)
            return Answer(202, headers=headers)
        self._services.attached.recursion.admit(request_id, target.partition(":")[0], trace)
        result = await self._services.invoker.invoke(
            target, request_id=request_id, payload=payload, client_context=context
        )
        self._services.intake.archive(record)
        return _result(result, headers, with_log=with_log)

    async def _accept(self, record: Record, trace: str) -> None:
        """Store an asynchronous event; one of a loop goes where failures go (invocation-recursion.html)."""
        loops = self._services.attached.recursion
        try:
            loops.admit(record.id, record.lane, trace)
        except RecursiveInvocation as error:
            loops.follow(record.id, [trace])  # where its failure goes, the loop goes on
            await self._services.refuse(record, Condition.RECURSIVE_LOOP, error)
        else:
            await self._services.intake.submit(record)


def _result(result: InvocationResult, headers: dict[str, str], *, with_log: bool) -> Answer:
    if result.kind is ResultKind.UNKNOWN:
        text = result.error_message or "the function may or may not have run to its end"
        return _error(
            504 if result.is_late else 502, "ServiceException", text, headers["x-amzn-requestid"], kind="Service"
        )
    headers["x-amz-executed-version"] = result.version
    if result.kind is ResultKind.FUNCTION_ERROR:
        headers["x-amz-function-error"] = "Unhandled"
    if with_log:
        tail = result.log_tail[-limits.LOG_TAIL_MAX_BYTES :]
        headers["x-amz-log-result"] = base64.b64encode(tail).decode("ascii")
    return Answer(200, result.payload, headers=headers)


class _Invalid(Exception):
    """A parameter of the request is wrong."""

    def __init__(self, code: str, text: str, *, kind: str = "User") -> None:
        super().__init__(text)
        self.code = code
        self.kind = kind


def _target(target: str, qualifier: str | None) -> str:
    """Join path and query; two different qualifiers are refused (semantics 0.3)."""
    name, _, given = target.partition(":")
    if len(target) > TARGET_MAX_CHARS:
        raise HttpError(400, f"the function's name has more than {TARGET_MAX_CHARS} characters")
    if qualifier and given and qualifier != given:
        raise HttpError(400, "The derived qualifier from the function name does not match the specified qualifier.")
    chosen = qualifier or given
    return f"{name}:{chosen}" if chosen else name


def _enum(request: Request, header: str, member: str, known: tuple[str, ...], default: str) -> str:
    value = request.header(header, default)
    if value not in known:
        text = (
            f"1 validation error detected: Value '{value[:100]}' at '{member}' failed to satisfy constraint: "
            f"Member must satisfy enum value set: [{', '.join(known)}]"
        )
        raise _Invalid("ValidationException", text, kind="")
    return value


def _client_context(header: str) -> bytes:
    if not header:
        return b""
    if len(header) > limits.CLIENT_CONTEXT_MAX_BYTES:
        text = f"Client context must be at most {limits.CLIENT_CONTEXT_MAX_BYTES} bytes of base64"
        raise _Invalid("InvalidRequestContentException", text)
    try:
        context = base64.b64decode(header, validate=True)
        is_object = isinstance(orjson.loads(context), dict)
    except (binascii.Error, ValueError):
        is_object = False
    if not is_object:
        raise _Invalid("InvalidRequestContentException", "Client context must be a valid Base64-encoded JSON object.")
    return context


def _check_depth(payload: bytes) -> None:
    """Refuse nesting that could be read but not written again (reliability 0.10)."""
    if not is_too_deep(payload):
        return
    raise _Invalid(
        "InvalidRequestContentException",
        f"Could not parse request body into json: nested deeper than {limits.JSON_DEPTH_MAX} levels",
    )


def _refusal(error: InvokeError, request_id: str) -> Answer:
    kind = "Service" if error.status >= 500 else "User"
    if isinstance(error, Throttled):
        headers = {"retry-after": str(max(1, round(error.retry_after_s)))}
        return _error(error.status, error.code, str(error), request_id, kind=kind, reason=error.reason, headers=headers)
    if isinstance(error, FunctionNotFound) or error.status < 500:
        return _error(error.status, error.code, str(error), request_id, kind=kind)
    return _error(error.status, error.code, str(error), request_id, kind=kind, headers={"retry-after": "1"})


def _error(
    status: int,
    code: str,
    text: str,
    request_id: str,
    *,
    kind: str,
    reason: str = "",
    headers: dict[str, str] | None = None,
) -> Answer:
    members = {"Reason": reason} if reason else {}
    return Refused(code, text, status=status, kind=kind, members=members, headers=headers).answer(request_id)

"""Runs events on remote functions, through Lambda's API: one attempt each, and what an answer means."""

import asyncio
import base64
import binascii
import random
import re
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Final

import orjson

from bridge.aws.clients import AwsClients
from bridge.aws.errors import AwsTrouble, AwsTroubleKind, call_errors, trouble
from bridge.aws.trace import sending
from bridge.core import limits
from bridge.core.connection import AwsConnection
from bridge.core.errors import (
    FunctionNotFound,
    InvokeDenied,
    InvokeError,
    PayloadInvalid,
    PayloadTooLarge,
    RuntimeUnavailable,
    Throttled,
)
from bridge.core.function import FunctionVersion, RemoteFunction
from bridge.core.invocation import NO_ANSWER, THROTTLE_ACCOUNT, Invocation, InvocationResult, ResultKind
from bridge.core.ports import Clock
from bridge.invokers.circuit import Ask, Circuit

_PATH: Final = re.compile(r"(?P<prefix>.*)/2015-03-31/functions/(?P<name>[^/]+)/invocations\Z")
"""An endpoint that is the whole URL of one function, as that of the runtime interface emulator is written."""
_OF_AWS: Final = re.compile(r"\.(?:amazonaws\.com(?:\.cn)?|api\.aws)(?::\d+)?(?:/|\Z)")
_READ_MAX_S: Final = limits.TIMEOUT_MAX_S + 2 * limits.REMOTE_MARGIN_S
"""One client for all functions: each call has its own deadline, below it."""
_READ_CHUNK_BYTES: Final = 256 * 1024
_MESSAGE_MAX_CHARS: Final = 1024
_UNSTARTED: Final = re.compile(
    r"(EC2|ENI|KMS|EFS|SnapStart|Subnet|InvalidSubnet|InvalidSecurityGroup|InvalidRuntime|InvalidZip|ResourceNotReady)"
)
"""Codes of a 5xx after which the function cannot have begun (semantics 0.2)."""
Fact = tuple[str, bool, str]


class RemoteFunctions:
    """`ports.Runtime` over Lambda's API.

    What cannot be known to have failed before it began is *unknown*: a reset after the request was sent, no answer
    in time, a 5xx. Nothing is tried again here.

    Args:
        clients: of AWS.
        clock: the daemon's.
        is_allowed: False: nothing is invoked; events wait, and callers are refused.
        rng: source of the jitter.
    """

    def __init__(
        self, clients: AwsClients, *, clock: Clock, is_allowed: bool = True, rng: random.Random | None = None
    ) -> None:
        self._clients = clients
        self._clock = clock
        self._is_allowed = is_allowed
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._circuits: dict[tuple[str, str], Circuit] = {}
        """By name and revision."""
        self._alarms: dict[Circuit, asyncio.Task[None]] = {}
        self._callbacks: list[Callable[[], None]] = []
        self.trace: Callable[[str, str], str] = lambda _request_id, _name: ""
        """Returns the trace header that goes with an invocation, of its request id and its function's name."""

    # --- ports.Runtime ------------------------------------------------------------------------

    async def invoke(self, version: FunctionVersion, invocation: Invocation) -> InvocationResult:
        """Ask the remote once.

        Raises:
            InvokeError: not accepted, nothing ran: Throttled, FunctionNotFound, InvokeDenied, PayloadTooLarge,
                PayloadInvalid, RuntimeUnavailable.
        """
        remote = version.remote
        assert remote is not None
        if not self._is_allowed:
            raise self._not_allowed(version)
        circuit = self._circuit(version)
        ask = circuit.begin()
        began = self._clock.monotonic()
        timeout_s = (
            version.timeout_s if invocation.deadline_s is None else min(version.timeout_s, invocation.deadline_s)
        )
        try:
            async with asyncio.timeout(timeout_s + limits.REMOTE_MARGIN_S):
                answer = await self._ask(version.name, remote, invocation)
        except call_errors() as error:
            result = self._failed(version, circuit, ask, _told(error, timeout_s))
        else:
            circuit.answered()
            result = answer
        finally:
            circuit.end(ask)
            self._watch(circuit)
            for callback in self._callbacks:
                callback()
        return replace(result, duration_ms=(self._clock.monotonic() - began) * 1000)

    def free_slots(self, version: FunctionVersion, *, enough: int | None = None) -> int:
        """How many may be asked now."""
        del enough
        return self._circuit(version).room(self._clock.monotonic()) if self._is_allowed else 0

    def on_free(self, callback: Callable[[], None]) -> None:
        """Call back when one ended, or may be asked again."""
        self._callbacks.append(callback)

    def retire(self, name: str, *, keep_revision: str | None, also_keep: Collection[str] = ()) -> None:
        """Forget what is known of the function's other revisions."""
        for key in [key for key in self._circuits if key[0] == name and key[1] not in {keep_revision, *also_keep}]:
            circuit = self._circuits.pop(key)
            if (alarm := self._alarms.pop(circuit, None)) is not None:
                alarm.cancel()

    # --- why not ------------------------------------------------------------------------------

    def hindrance(self, version: FunctionVersion) -> InvokeError | None:
        """Return why nothing is asked now, whatever the limits allow: what a caller who waits is told."""
        if not self._is_allowed:
            return self._not_allowed(version)
        now, circuit = self._clock.monotonic(), self._circuit(version)
        text = circuit.hindrance(now)
        if not text:
            return None
        if circuit.is_throttled:
            return _ThrottledThere(f"function {version.name}: {text}", retry_after_s=max(0.0, circuit.held_until - now))
        return RuntimeUnavailable(f"function {version.name}: {text}")

    def facts(self, versions: list[FunctionVersion]) -> list[Fact]:
        """Return what is known of each remote function; nothing is tried."""
        return [self._fact(version, version.remote) for version in versions if version.remote is not None]

    def _fact(self, version: FunctionVersion, remote: RemoteFunction) -> Fact:
        by = f" by connection {remote.connection.name}" if remote.connection.name else ""
        text = f"{remote.arn}{by}{', handed over' if remote.handover else ''}"
        reason = self.hindrance(version)
        return f"function {version.name}", reason is None, text if reason is None else f"{text}: {reason}"

    def troubles(self, versions: list[FunctionVersion], *, told_s: float) -> list[str]:
        """Return a line for each remote that has not been reached for longer than `told_s` seconds."""
        now, lines = self._clock.monotonic(), []
        for version in versions:
            circuit = self._circuits.get((version.name, version.revision))
            if circuit is not None and circuit.opened_at is not None and now - circuit.opened_at > told_s:
                lasts_s = now - circuit.opened_at
                lines.append(f"function {version.name} cannot be invoked for {lasts_s:.0f} s: {circuit.hindrance(now)}")
        return lines

    async def close(self) -> None:
        """End what waits for a circuit's time; the clients are their owner's."""
        alarms = list(self._alarms.values())
        self._alarms.clear()
        for alarm in alarms:
            alarm.cancel()
        await asyncio.gather(*alarms, return_exceptions=True)

    # --- one call -----------------------------------------------------------------------------

    async def _ask(self, function: str, remote: RemoteFunction, invocation: Invocation) -> InvocationResult:
        connection, name = address(remote)
        client = await self._clients.client(
            connection,
            "lambda",
            region=remote.arn.region,
            read_timeout_s=_READ_MAX_S,
            pool=limits.REMOTE_CONNECTIONS_MAX,
        )
        is_handover = remote.handover and not invocation.is_awaited
        more: dict[str, str] = {}
        if remote.qualifier:
            more["Qualifier"] = remote.qualifier
        if not is_handover:
            more["LogType"] = "Tail"
        if invocation.client_context and not is_handover:  # for synchronous calls only (semantics 1.1)
            more["ClientContext"] = base64.b64encode(invocation.client_context).decode("ascii")
        with sending(client, self.trace(invocation.request_id, function)):
            answer = await client.invoke(
                FunctionName=name,
                InvocationType="Event" if is_handover else "RequestResponse",
                Payload=invocation.payload,
                **more,
            )
        payload = await _read(answer["Payload"])
        if is_handover:
            return InvocationResult(kind=ResultKind.OK, payload=b"", version="", handed_over=True)
        return _result(answer, payload)

    def _failed(self, version: FunctionVersion, circuit: Circuit, ask: Ask, told: AwsTrouble) -> InvocationResult:
        """Tell the circuit and return *unknown*, or raise that nothing ran."""
        now, kind = self._clock.monotonic(), told.kind
        if kind is AwsTroubleKind.THROTTLED:
            circuit.throttled(now, retry_after_s=told.retry_after_s, reason=told.reason)
        elif kind in (AwsTroubleKind.TOO_LARGE, AwsTroubleKind.INVALID) or told.code == FunctionNotFound.code:
            circuit.answered()
        else:
            is_certain = kind in (AwsTroubleKind.UNREACHABLE, AwsTroubleKind.DENIED)
            circuit.failed(ask, now, told.message, is_certain=is_certain)
        is_unknown = kind is AwsTroubleKind.SERVICE and not _UNSTARTED.match(told.code)
        if is_unknown or kind is AwsTroubleKind.UNKNOWN_OUTCOME:
            return InvocationResult(
                kind=ResultKind.UNKNOWN,
                payload=b"",
                version="",
                error_type=told.code,
                error_message=told.message[:_MESSAGE_MAX_CHARS],
            )
        raise _refusal(version.name, told)

    # --- circuits -----------------------------------------------------------------------------

    def _circuit(self, version: FunctionVersion) -> Circuit:
        key = version.name, version.revision
        circuit = self._circuits.get(key)
        if circuit is None:
            circuit = self._circuits[key] = Circuit(self._rng)
        return circuit

    def _watch(self, circuit: Circuit) -> None:
        """Call back once the circuit's time is over."""
        if circuit not in self._alarms and circuit.held_until > self._clock.monotonic():
            self._alarms[circuit] = asyncio.create_task(self._wake(circuit))

    async def _wake(self, circuit: Circuit) -> None:
        while (wait_s := circuit.held_until - self._clock.monotonic()) > 0:
            await self._clock.sleep(wait_s)
        self._alarms.pop(circuit, None)
        for callback in self._callbacks:
            callback()

    @staticmethod
    def _not_allowed(version: FunctionVersion) -> InvokeDenied:
        return InvokeDenied(f"function {version.name} is remote ({version.arn}): invoked with --allow-remote only")


class _ThrottledThere(Throttled):
    """The remote's own throttle holds."""

    def __init__(self, text: str, *, retry_after_s: float) -> None:
        super().__init__(THROTTLE_ACCOUNT, retry_after_s=retry_after_s)
        self.text = text

    def __str__(self) -> str:
        return self.text


def address(remote: RemoteFunction) -> tuple[AwsConnection, str]:
    """Return where a remote function is asked, and under which name.

    AWS is given the ARN, which also names another account's function. What stands in for it is given the plain name,
    of the endpoint's URL where that is one function's; a path before it stays.
    """
    endpoint = remote.connection.endpoint("lambda")
    if not endpoint or _OF_AWS.search(endpoint):
        return remote.connection, remote.unqualified_arn
    if found := _PATH.match(endpoint):
        prefix = replace(remote.connection, endpoint_url=found["prefix"], endpoint_urls={})
        return prefix, found["name"]
    return remote.connection, remote.name


async def _read(body: Any) -> bytes:
    """Return an answer's body: at most one byte more than Lambda allows."""
    parts, size = list[bytes](), 0
    while size <= limits.SYNC_RESPONSE_MAX_BYTES and (part := await body.read(_READ_CHUNK_BYTES)):
        parts.append(part)
        size += len(part)
    if size > limits.SYNC_RESPONSE_MAX_BYTES:
        body.close()
    return b"".join(parts)


def _result(answer: Any, payload: bytes) -> InvocationResult:
    version = str(answer.get("ExecutedVersion") or "$LATEST")
    try:
        tail = base64.b64decode(answer.get("LogResult") or "")[-limits.LOG_TAIL_MAX_BYTES :]
    except (binascii.Error, ValueError):
        tail = b""
    is_large = len(payload) > limits.SYNC_RESPONSE_MAX_BYTES
    if is_large:
        payload = orjson.dumps({
            "errorMessage": "Response payload size exceeded maximum allowed payload size "
            f"({limits.SYNC_RESPONSE_MAX_BYTES} bytes).",
            "errorType": "Function.ResponseSizeTooLarge",
        })  # fmt: skip
    if not (is_large or answer.get("FunctionError")):
        return InvocationResult(kind=ResultKind.OK, payload=payload, version=version, log_tail=tail)
    error_type, message = _error(payload)
    return InvocationResult(
        kind=ResultKind.FUNCTION_ERROR,
        payload=payload,
        version=version,
        error_type=error_type or str(answer.get("FunctionError")),
        error_message=message,
        log_tail=tail,
    )


def _error(payload: bytes) -> tuple[str, str]:
    """Return errorType and errorMessage of a function error's JSON (semantics 1.4)."""
    try:
        told = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return "", payload[:_MESSAGE_MAX_CHARS].decode("utf-8", "replace")
    if not isinstance(told, dict):
        return "", str(told)[:_MESSAGE_MAX_CHARS]
    return str(told.get("errorType") or ""), str(told.get("errorMessage") or "")[:_MESSAGE_MAX_CHARS]


def _told(error: Exception, timeout_s: float) -> AwsTrouble:
    told = trouble(error)
    if isinstance(error, TimeoutError):
        text = f"no answer {limits.REMOTE_MARGIN_S:.0f} s after the {timeout_s:.0f} s that the function may take"
        return replace(told, code=NO_ANSWER, message=text)
    return told


def _refusal(name: str, told: AwsTrouble) -> InvokeError:
    """Return what says that the remote did not accept the event."""
    text = f"function {name}: {told.message}"
    if told.kind is AwsTroubleKind.THROTTLED:
        return Throttled(told.reason or THROTTLE_ACCOUNT, retry_after_s=told.retry_after_s or 1.0)
    if told.code == FunctionNotFound.code:
        return FunctionNotFound(text)
    if told.kind in (AwsTroubleKind.DENIED, AwsTroubleKind.EXPIRED_TOKEN):
        return InvokeDenied(text)
    if told.kind is AwsTroubleKind.TOO_LARGE:
        return PayloadTooLarge(text)
    if told.code == PayloadInvalid.code:
        return PayloadInvalid(text)
    return RuntimeUnavailable(text)

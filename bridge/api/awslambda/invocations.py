"""Invoke, InvokeAsync and InvokeWithResponseStream of Lambda's API."""

import binascii
import json
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

from bridge.api.awslambda.errors import Refused
from bridge.api.http import Answer, Request, TooLarge
from bridge.api.invoke import InvokeEndpoint
from bridge.core import limits
from bridge.core.invocation import InvocationType

INVOKE_ASYNC_MAX_BYTES: Final = 262_144
"""API_InvokeAsync."""
_TYPE: Final = "x-amz-invocation-type"
_EVENT_STREAM: Final = "application/vnd.amazon.eventstream"


class InvocationOperations:
    """The three ways to invoke; `target_of` finds the function once the body, which is signed, has been read."""

    def __init__(self, invocations: InvokeEndpoint) -> None:
        self._invocations = invocations

    def invoke(self, request: Request, request_id: str, target_of: Callable[[bytes], str]) -> Awaitable[Answer]:
        """API_Invoke."""
        return self._invocations.answer(request, request_id, target_of)

    async def invoke_async(self, request: Request, request_id: str, target_of: Callable[[bytes], str]) -> Answer:
        """API_InvokeAsync: as Invoke of type Event, with its status as the body, too."""
        request.headers[_TYPE] = [InvocationType.EVENT.value]
        try:
            await request.body(INVOKE_ASYNC_MAX_BYTES)
        except TooLarge as error:
            raise Refused(
                "RequestEntityTooLargeException",
                f"{error.size} byte payload is too large for the Event invocation type "
                f"(limit {INVOKE_ASYNC_MAX_BYTES} bytes)",
                status=413,
            ) from error
        answer = await self._invocations.answer(request, request_id, target_of)
        if answer.status == 202:
            return Answer(202, b'{"Status":202}', headers=answer.headers)
        return answer

    async def response_stream(self, request: Request, request_id: str, target_of: Callable[[bytes], str]) -> Answer:
        """API_InvokeWithResponseStream: one chunk with the whole answer, then InvokeComplete."""
        if request.header(_TYPE) == InvocationType.EVENT:
            raise Refused(
                "ValidationException",
                "1 validation error detected: Value 'Event' at 'invocationType' failed to satisfy constraint: "
                "Member must satisfy enum value set: [RequestResponse, DryRun]",
                kind="",
            )
        answer = await self._invocations.answer(request, request_id, target_of)
        if answer.status != 200:
            return answer
        complete: dict[str, Any] = {}
        frames = b""
        if answer.headers.pop("x-amz-function-error", ""):
            complete |= _error(answer.body)
        else:
            frames = event_frame("PayloadChunk", answer.body, content_type="application/octet-stream")
        if (log_tail := answer.headers.pop("x-amz-log-result", None)) is not None:
            complete["LogResult"] = log_tail
        frames += event_frame("InvokeComplete", orjson.dumps(complete), content_type="application/json")
        return Answer(200, frames, content_type=_EVENT_STREAM, headers=answer.headers)


def _error(payload: bytes) -> dict[str, str]:
    """Return what InvokeComplete says of a function error: its type, and the error as JSON text."""
    try:
        found = json.loads(payload)
        code = found.get("errorType", "") if isinstance(found, dict) else ""
    except ValueError:
        code = ""
    details = payload.decode("utf-8", "replace")
    return {"ErrorCode": str(code) or "Unhandled", "ErrorDetails": details[: limits.SYNC_PAYLOAD_MAX_BYTES]}


def event_frame(kind: str, payload: bytes, *, content_type: str) -> bytes:
    """Return one message of AWS's event stream encoding (smithy.io/2.0/aws/amazon-eventstream.html)."""
    pairs: Mapping[str, str] = {":event-type": kind, ":content-type": content_type, ":message-type": "event"}
    headers = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
        for name, value in pairs.items()
    )
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    prelude += struct.pack("!I", binascii.crc32(prelude))
    message = prelude + headers + payload
    return message + struct.pack("!I", binascii.crc32(message))

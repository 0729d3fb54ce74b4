"""The faults of the stub: what AWS and the network do to a call."""

import asyncio
import dataclasses
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.brokers.wire import Answer, Call, answer_error

Forward = Callable[[Call], Awaitable[Answer]]

THROTTLES = {
    "kinesis": (400, "ProvisionedThroughputExceededException"),
    "dynamodb": (400, "ProvisionedThroughputExceededException"),
    "dynamodbstreams": (400, "LimitExceededException"),
    "lambda": (429, "TooManyRequestsException"),
    "s3": (503, "SlowDown"),
    "sns": (400, "Throttling"),
    "sts": (400, "Throttling"),
    "sqs": (403, "RequestThrottled"),
}


class Reset(Exception):
    """The connection ends here, behind `half` bytes of an answer."""

    def __init__(self, half: bytes = b"") -> None:
        self.half = half
        super().__init__()

    async def break_off(self, writer: asyncio.StreamWriter) -> None:
        if self.half:
            writer.write(self.half)
            await writer.drain()
            writer.close()  # an orderly end in the middle
            return
        one = writer.get_extra_info("socket")
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST instead of FIN
        writer.transport.abort()


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is done to one call; raises Reset to break off its connection."""

    name: str
    act: Callable[[Call, Forward], Awaitable[Answer]]


def error(status: int, code: str, message: str = "injected", headers: Mapping[str, str] | None = None) -> Fault:
    """Answer with an error of AWS; the call goes no further."""

    async def act(call: Call, forward: Forward) -> Answer:
        return answer_error(call, status, code, message, headers)

    return Fault(code, act)


def throttle(retry_after_s: float | None = None) -> Fault:
    """Answer as the service does when it is asked too much."""

    async def act(call: Call, forward: Forward) -> Answer:
        status, code = THROTTLES.get(call.service, (400, "ThrottlingException"))
        headers = {} if retry_after_s is None else {"retry-after": f"{retry_after_s:g}"}
        return answer_error(call, status, code, "Rate exceeded", headers)

    return Fault("throttle", act)


def server_error(status: int = 503) -> Fault:
    return error(status, "InternalFailure" if status == 500 else "ServiceUnavailable")


def bare_error(status: int = 502) -> Fault:
    """Answer as a load balancer between does: an error without a word of AWS."""

    async def act(call: Call, forward: Forward) -> Answer:
        return Answer(status, {"content-type": "text/html"}, b"<html>Bad Gateway</html>")

    return Fault(f"bare {status}", act)


def expired_iterator() -> Fault:
    return error(400, "ExpiredIteratorException", "Iterator expired.")


def trimmed() -> Fault:
    return error(400, "TrimmedDataAccessException", "The operation attempted to read past the oldest record.")


def expired_token() -> Fault:
    """Answer as the service does when temporary credentials are too old."""

    async def act(call: Call, forward: Forward) -> Answer:
        code = "ExpiredToken" if call.service in ("s3", "sns", "sts") else "ExpiredTokenException"
        return answer_error(call, 400, code, "The security token included in the request is expired")

    return Fault("expired token", act)


def denied() -> Fault:
    """Answer as the service does to a caller whose policies do not allow it."""

    async def act(call: Call, forward: Forward) -> Answer:
        is_xml = call.service in ("s3", "sns", "sts")
        status = 403 if is_xml or call.service == "lambda" else 400
        return answer_error(call, status, "AccessDenied" if is_xml else "AccessDeniedException", "not authorized")

    return Fault("denied", act)


def reset_before() -> Fault:
    """Break the connection before the emulator sees the call."""

    async def act(call: Call, forward: Forward) -> Answer:
        raise Reset

    return Fault("reset before", act)


def reset_after() -> Fault:
    """Break the connection when the emulator has done what was asked: the client cannot know."""

    async def act(call: Call, forward: Forward) -> Answer:
        await forward(call)
        raise Reset

    return Fault("reset after", act)


def half_answer() -> Fault:
    """Break off in the middle of the answer's body."""

    async def act(call: Call, forward: Forward) -> Answer:
        answer = await forward(call)
        whole = answer.encode()
        raise Reset(whole[: len(whole) - max(1, len(answer.body) // 2)])

    return Fault("half answer", act)


def slow(seconds: float) -> Fault:
    """Hold the answer back."""

    async def act(call: Call, forward: Forward) -> Answer:
        answer = await forward(call)
        await asyncio.sleep(seconds)
        return answer

    return Fault("slow", act)


def partial(fails: Callable[[int, Any], bool] | int = 1, *, code: str = "InternalFailure") -> Fault:
    """Let a batch through without some of its entries, and say of those that they failed.

    `fails(index, entry)`, or how many from the front. For batches of SQS, PutRecords of Kinesis and PutEvents.
    """
    chosen = (lambda index, _: index < fails) if isinstance(fails, int) else fails

    async def act(call: Call, forward: Forward) -> Answer:
        request = call.json()
        field = "Records" if call.operation == "PutRecords" else "Entries"
        entries = request[field]
        out = {index for index, entry in enumerate(entries) if chosen(index, entry)}
        request[field] = [entry for index, entry in enumerate(entries) if index not in out]
        headers, value = {"content-type": "application/x-amz-json-1.1"}, {}
        if request[field]:
            answer = await forward(dataclasses.replace(call, body=json.dumps(request).encode()))
            if answer.status != 200:
                return answer
            headers, value = dict(answer.headers), answer.json()
        call.forwarded = bool(request[field])
        _put_failures(value, call.operation, entries, out, code)
        return Answer(200, headers, json.dumps(value).encode())

    return Fault("partial", act)


def _put_failures(value: dict[str, Any], operation: str, entries: list[Any], out: set[int], code: str) -> None:
    """Complete the answer `value` with the entries at the indices `out`, in the form of the operation."""
    if operation in ("PutRecords", "PutEvents"):
        field, count = (
            ("Records", "FailedRecordCount") if operation == "PutRecords" else ("Entries", "FailedEntryCount")
        )
        rest = iter(value.get(field, []))
        failed = {"ErrorCode": code, "ErrorMessage": "injected"}
        value[field] = [failed if index in out else next(rest) for index in range(len(entries))]
        value[count] = value.get(count, 0) + len(out)
        return
    value.setdefault("Successful", [])
    value["Failed"] = value.get("Failed", []) + [
        {"Id": entries[index]["Id"], "SenderFault": False, "Code": code, "Message": "injected"} for index in sorted(out)
    ]

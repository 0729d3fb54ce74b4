"""Requests and answers of AWS's HTTP as the fault stub reads and writes them: which operation, how an error looks."""

import asyncio
import dataclasses
import json
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

HEAD_MAX_BYTES = 2**20
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}
S3_OPERATIONS = {"PUT": "PutObject", "GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}


@dataclasses.dataclass
class Call:
    """One request, and what became of it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    service: str
    """As in the signature: `kinesis`, `sqs`, `lambda`, …"""
    operation: str
    number: int = -1
    at: float = dataclasses.field(default_factory=time.monotonic)
    fault: str = ""
    """What was injected; empty for nothing."""
    forwarded: bool = False
    """Whether it reached the emulator, or who answers in its place."""
    status: int = 0
    """What the client was answered; 0 for nothing whole."""
    answered_at: float = 0.0

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def function(self) -> str:
        """The function of an Invoke, as written in its path."""
        found = re.search(r"/functions/([^/]+)/invocations", self.target)
        return found[1] if found else ""

    def encode(self) -> bytes:
        """Return the request for the emulator, on a connection of its own."""
        kept = {name: value for name, value in self.headers.items() if name not in HOP_BY_HOP}
        kept |= {"content-length": str(len(self.body)), "connection": "close"}
        return _head(f"{self.method} {self.target} HTTP/1.1", kept) + self.body


@dataclasses.dataclass(frozen=True)
class Answer:
    """A status, headers and a body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def encode(self, *, head_only: bool = False) -> bytes:
        headers = {name: value for name, value in self.headers.items() if name not in HOP_BY_HOP}
        length = self.headers.get("content-length", "0") if head_only else str(len(self.body))
        if self.status >= 200 and self.status != 204:
            headers["content-length"] = length
        return _head(f"HTTP/1.1 {self.status} -", headers) + (b"" if head_only else self.body)

    def json(self) -> Any:
        return json.loads(self.body)


def answer_json(value: Any, status: int = 200, **headers: str) -> Answer:
    """Return an answer of a JSON protocol; `_` in header names stands for `-`."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, {"content-type": "application/x-amz-json-1.1"} | named, json.dumps(value).encode())


def answer_error(call: Call, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an error in the protocol of the call's service."""
    extra = {"x-amzn-requestid": f"stub-{call.number}"} | dict(headers or {})
    if call.service in ("sns", "sts", "iam"):
        kind = "Sender" if status < 500 else "Receiver"
        text = f"<Error><Type>{kind}</Type><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
        body = f"<ErrorResponse>{text}<RequestId>stub</RequestId></ErrorResponse>"
        return Answer(status, {"content-type": "text/xml"} | extra, body.encode())
    if call.service == "s3":
        body = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
        return Answer(status, {"content-type": "application/xml"} | extra, body.encode())
    if call.service == "lambda":
        value = {"Type": "User" if status < 500 else "Service", "message": message, "Message": message}
        return answer_json(value, status, **{"x-amzn-errortype": code}, **extra)
    if call.service == "sqs":
        extra["x-amzn-query-error"] = f"{code};{'Sender' if status < 500 else 'Receiver'}"
    return answer_json({"__type": code, "message": message}, status, **extra)


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Call | None:
    """Return the next request of a connection; None at its end."""
    try:
        line, headers = await _read_head(reader)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    method, target, _ = line.split(" ", 2)
    body = await _read_body(reader, headers)
    service = _service(headers)
    return Call(method, target, headers, body, service, _operation(service, method, target, headers, body))


async def read_answer(reader: asyncio.StreamReader, *, head_only: bool) -> Answer:
    """Return the answer of an emulator that closes behind it."""
    line, headers = await _read_head(reader)
    while (status := int(line.split(" ", 2)[1])) == 100:
        line, headers = await _read_head(reader)
    if head_only or status == 204:
        return Answer(status, headers, b"")
    if "content-length" in headers or "transfer-encoding" in headers:
        return Answer(status, headers, await _read_body(reader, headers))
    return Answer(status, headers, await reader.read())


def _head(line: str, headers: Mapping[str, str]) -> bytes:
    return "".join([f"{line}\r\n", *(f"{name}: {value}\r\n" for name, value in headers.items()), "\r\n"]).encode()


async def _read_head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
    pairs = (field.split(":", 1) for field in fields)
    return line, {name.lower(): value.strip() for name, value in pairs}


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if "chunked" not in headers.get("transfer-encoding", ""):
        return await reader.readexactly(int(headers.get("content-length", "0")))
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return b"".join(parts)


def _service(headers: Mapping[str, str]) -> str:
    found = re.search(r"Credential=[^/]+/[^/]+/[^/]+/([^/]+)/aws4_request", headers.get("authorization", ""))
    target = headers.get("x-amz-target", "")
    if target.startswith("DynamoDBStreams"):
        return "dynamodbstreams"
    return found[1] if found else ""


def _operation(service: str, method: str, target: str, headers: Mapping[str, str], body: bytes) -> str:
    if named := headers.get("x-amz-target"):
        return named.rpartition(".")[2]
    path = urlsplit(target).path
    if path.endswith("/invocations"):
        return "Invoke"
    if "x-www-form-urlencoded" in headers.get("content-type", ""):
        return parse_qs(body.decode()).get("Action", [""])[0]
    if service == "s3" and "/" in path.strip("/"):
        return S3_OPERATIONS.get(method, method)
    return f"{method} {path}"

"""An HTTP server that answers as a test says, faults included: what AWS's clients are tried against."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    wait: asyncio.Event | None = None
    """The answer comes once this is set."""


class Fault(StrEnum):
    """What comes instead of an answer."""

    RESET = "reset"
    """The connection is reset once the request was read."""
    HALF = "half"
    """An answer that breaks off."""
    HANG = "hang"
    """Nothing, until the stub ends."""


RESET, HALF, HANG = Fault.RESET, Fault.HALF, Fault.HANG


def failed(
    status: int, code: str, message: str = "no", headers: dict[str, str] | None = None, **members: Any
) -> Answer:
    """Return an error as Lambda, Kinesis, DynamoDB and SQS answer it."""
    body = {"__type": code, "message": message, **members}
    return Answer(status=status, body=json.dumps(body).encode(), headers={"x-amzn-errortype": code, **(headers or {})})


class HttpStub:
    """Answers `answers` in turn, then `answer`; remembers what was asked.

    `answer` may be a function of what was asked.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answers: list[Answer | Fault] = []
        self.answer: Answer | Fault | Callable[[Asked], Answer | Fault] = Answer()
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def open(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Listen no more and end every connection; `open(port)` comes back."""
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        asked = Asked(method=method, path=path, headers=headers, body=body)
        self.asked.append(asked)
        answer = self.answers.pop(0) if self.answers else self.answer
        if callable(answer):
            answer = answer(asked)
        if isinstance(answer, Fault):
            if answer is HANG:
                await asyncio.Event().wait()
            if answer is HALF:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
                await writer.drain()
            return False
        if answer.wait is not None:
            await answer.wait.wait()
        lines = [f"HTTP/1.1 {answer.status} X", f"Content-Length: {len(answer.body)}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + answer.body)
        await writer.drain()
        return True


@contextlib.asynccontextmanager
async def http_stub() -> AsyncIterator[HttpStub]:
    stub = HttpStub()
    await stub.open()
    try:
        yield stub
    finally:
        await stub.close()

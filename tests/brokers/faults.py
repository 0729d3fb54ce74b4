"""A stub between a client and AWS that injects faults, per operation, scripted or by a seeded chance, and records all calls.

stub = aws_faults(ministack)                                 # in front of an emulator, or aws_faults() alone
stub.script("GetRecords", throttle(), None, reset_after())   # the next three calls; None lets one through
stub.sometimes("*", 0.1, throttle(), server_error(), seed=1)
stub.answer("Invoke", lambda call: answer_json({}))          # instead of the emulator
stub.down(); stub.up()                                       # nobody listens
"""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.brokers.aws import AwsService
from tests.brokers.fault_kinds import Fault, Reset
from tests.brokers.wire import Answer, Call, read_answer, read_request

CLOSE_MAX_S = 10.0
ACCOUNT = "123456789012"
READ_AHEAD_BYTES = 2**22


class FaultStub(AwsService):
    """One endpoint of AWS that misbehaves as it is told; it listens on the same port all its life."""

    def __init__(self, upstream: AwsService | None, *, folder: Path, stem: str) -> None:
        """Listen; `upstream` is where calls go that nothing is said about."""
        self.calls: list[Call] = []
        """Every call that came in whole, in the order of their coming."""
        self._scripts: dict[str, list[Fault | None]] = {}
        self._chances: list[tuple[str, float, tuple[Fault, ...], random.Random]] = []
        self._answers: dict[str, Callable[[Call], Answer]] = {}
        self._upstream = urlsplit(upstream.endpoint_url) if upstream is not None else None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._port = 0
        self.up()
        super().__init__(
            f"http://127.0.0.1:{self._port}",
            folder=folder,
            stem=stem,
            account=upstream.account if upstream is not None else ACCOUNT,
            region=upstream.region if upstream is not None else "us-east-1",
        )

    # --- what it is told ----------------------------------------------------------------------------------------
    def script(self, operation: str, *faults: Fault | None) -> None:
        """Let the next calls of `operation` ("*": of any) meet these, in turn; behind those that wait already."""
        with self._lock:
            self._scripts.setdefault(operation, []).extend(faults)

    def sometimes(self, operation: str, probability: float, *faults: Fault, seed: int) -> None:
        """Let calls of `operation` ("*": all) meet one of `faults` with `probability`, until `calm`."""
        with self._lock:
            self._chances.append((operation, probability, faults, random.Random(f"{seed}/{operation}")))

    def answer(self, operation: str, how: Callable[[Call], Answer]) -> None:
        """Answer calls of `operation` ("*": all) so, instead of forwarding them; `how` runs in a thread."""
        with self._lock:
            self._answers[operation] = how

    def calm(self) -> None:
        """Inject nothing from now on."""
        with self._lock:
            self._scripts.clear()
            self._chances.clear()

    def down(self) -> None:
        """Listen no longer and break what is open: clients are refused."""
        self._run(self._close_server())

    def up(self) -> None:
        """Listen again, on the same port."""
        self._run(self._open_server())

    def close(self) -> None:
        super().close()
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_MAX_S)
        self._loop.close()

    # --- what it saw --------------------------------------------------------------------------------------------
    def seen(self, operation: str) -> list[Call]:
        """Return the calls of one operation, oldest first."""
        return [call for call in list(self.calls) if call.operation == operation]

    # --- inside -------------------------------------------------------------------------------------------------
    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CLOSE_MAX_S)

    async def _open_server(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=READ_AHEAD_BYTES)
            self._port = self._server.sockets[0].getsockname()[1]

    async def _close_server(self) -> None:
        if self._server is None:
            return
        self._server.close()
        self._server = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # the loop closes what was aborted

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (call := await read_request(reader, writer)) is not None:
                with self._lock:
                    call.number = len(self.calls)
                    self.calls.append(call)
                    fault = self._fault_for(call.operation)
                call.fault = fault.name if fault is not None else ""
                await self._reply(call, fault, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()  # the client is gone, or the stub goes down
        except Reset as reset:
            await reset.break_off(writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _reply(self, call: Call, fault: Fault | None, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await (fault.act(call, self._forward) if fault is not None else self._forward(call))
        finally:
            call.answered_at = time.monotonic()
        call.status = answer.status
        writer.write(answer.encode(head_only=call.method == "HEAD"))
        await writer.drain()

    def _fault_for(self, operation: str) -> Fault | None:
        for name in (operation, "*"):
            if waiting := self._scripts.get(name):
                return waiting.pop(0)
        for name, probability, faults, chance in self._chances:
            if name in (operation, "*") and chance.random() < probability:
                return chance.choice(faults)
        return None

    async def _forward(self, call: Call) -> Answer:
        """Ask the emulator, on a connection of its own: no call is ever made twice here."""
        call.forwarded = True
        how = self._answers.get(call.operation) or self._answers.get("*")
        if how is not None:
            return await asyncio.to_thread(how, call)
        assert self._upstream is not None, f"nobody said what {call.operation} answers"
        reader, writer = await asyncio.open_connection(
            self._upstream.hostname, self._upstream.port, limit=READ_AHEAD_BYTES
        )
        try:
            writer.write(call.encode())
            await writer.drain()
            return await read_answer(reader, head_only=call.method == "HEAD")
        finally:
            writer.transport.abort()

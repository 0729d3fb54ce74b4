"""An init that fails runs once more, inside the invocation and under the function's timeout (semantics 6.2)."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bridge.core.invocation import ResultKind
from tests.unit.runtime.conftest import LONG_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

REPORT = re.compile(r"INIT_REPORT Init Duration: [\d.]+ ms\tPhase: (\w+)\tStatus: (\w+)(?:\tError Type: ([\w.]+))?$")


class Words:
    """Tells each init in turn how to go on."""

    def __init__(self, runner):
        self.runner = runner
        self.left = []
        self.port = 0
        self.told = lambda: None
        """Called after each word."""

    async def answer(self, _, writer):
        writer.write(self.left.pop(0).encode())
        self.told()
        writer.close()

    async def invoke(self, *words, **fields):
        """Invoke with these inits; return the result and what the log says of init."""
        self.left = list(words)
        name = f"asking-{self.port}"
        result = await self.runner.run("asking.handler", name=name, environment={"PORT": str(self.port)}, **fields)
        assert self.left == [], "there were fewer inits"
        lines = [line async for _, _, line in self.runner.logs.tail(name, lines=100, follow=False)]
        return result, [match.groups() for line in lines if (match := REPORT.match(line))]


@pytest_asyncio.fixture(loop_scope="module")
async def words(runner) -> AsyncIterator[Words]:
    told = Words(runner)
    server = await asyncio.start_server(told.answer, "127.0.0.1", 0)
    told.port = server.sockets[0].getsockname()[1]
    yield told
    server.close()


async def test_a_good_init_runs_once_and_is_not_reported(words):
    result, reports = await words.invoke("go")

    assert result.is_ok
    assert reports == []
    assert result.init_ms is not None


@pytest.mark.parametrize(("word", "error_type"), [("raise", "LookupError"), ("exit", "Runtime.ExitError")])
async def test_a_failed_init_that_succeeds_in_the_invocation(words, word, error_type):
    result, reports = await words.invoke(word, "go")

    assert result.is_ok, result
    assert reports == [("init", "error", error_type)]


@pytest.mark.slow
async def test_an_init_that_runs_out_of_memory_runs_again(words):
    result, reports = await words.invoke("eat", "go")

    assert result.is_ok, result
    assert reports == [("init", "error", "Runtime.ExitError")]


@pytest.mark.slow
async def test_the_second_init_is_part_of_the_invocation(words):
    result, _ = await words.invoke("raise", "hesitate")

    assert result.is_ok, result
    assert result.duration_ms >= 500
    assert result.billed_ms == -int(-result.duration_ms // 1)
    assert int(result.payload) <= LONG_S * 1000 - 500
    assert result.init_ms is None
    assert b"Init Duration" not in result.log_tail


async def test_a_raise_in_both_is_the_callers_error(words):
    result, reports = await words.invoke("raise", "raise")

    assert (result.kind, result.error_type, result.error_message) == (
        ResultKind.FUNCTION_ERROR, "LookupError", "told to",
    )  # fmt: skip
    assert reports == [("init", "error", "LookupError"), ("invoke", "error", "LookupError")]
    assert result.log_tail.count(b"START") == 1
    assert result.log_tail.endswith(b"\tStatus: error\tError Type: LookupError\t\n")


async def test_an_exit_in_both_is_the_callers_error(words):
    result, reports = await words.invoke("exit", "exit")

    assert result.error_type == "Runtime.ExitError"
    assert result.error_message.endswith("Error: Runtime exited with error: exit status 3")
    assert reports == [("init", "error", "Runtime.ExitError"), ("invoke", "error", "Runtime.ExitError")]


@pytest.mark.slow
async def test_the_second_init_has_the_functions_timeout(words):
    result, reports = await words.invoke("raise", "hang", timeout_s=1)

    assert result.error_type == "Sandbox.Timedout"
    assert result.duration_ms >= 1000
    assert reports == [("init", "error", "LookupError"), ("invoke", "timeout", None)]


@pytest.mark.slow
async def test_a_slow_init_has_ten_seconds_first(words, monkeypatch):
    monkeypatch.setattr("bridge.core.limits.INIT_MAX_S", 60)
    words.told = lambda: monkeypatch.setattr("bridge.core.limits.INIT_MAX_S", 0)  # however long it took to ask

    result, reports = await words.invoke("hang", "go")

    assert result.is_ok, result
    assert reports == [("init", "timeout", None)]


async def test_the_next_cold_start_begins_with_an_init_of_its_own(words):
    first, _ = await words.invoke("raise", "raise")
    second, _ = await words.invoke("raise", "go")

    assert (first.is_ok, second.is_ok) == (False, True)

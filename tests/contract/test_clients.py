"""The same Python handlers on our bootstrap and on AWS's own client behind the Runtime API: the same answer, error and log."""

import asyncio
import dataclasses
import json
import os
import re
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bridge.core.function import FunctionVersion, Interpreter, function_arn
from bridge.core.invocation import Invocation, InvocationResult
from bridge.registry.interpreters import INTERPRETER
from bridge.runtime import environment
from bridge.runtime.logs import FunctionLogs
from bridge.runtime.pool import WorkerPool
from bridge.util.clocks import SystemClock
from tests.harness import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CODE = """
import decimal, json, logging, os, sys
from collections import namedtuple

logging.getLogger().setLevel("INFO")
print("importing")
Point = namedtuple("Point", "x y")
calls = []


class Mine(Exception):
    pass


def act(event, context):
    calls.append(1)
    return ACTS[event["act"]](event, context)


def raises(event, context):
    raise Mine("no\\nway \\u00e9")


def nested(event, context):
    try:
        {}["gone"]
    except KeyError as error:
        raise ValueError("outer") from error


def log(event, context):
    print("printed", event["act"])
    print("to stderr", file=sys.stderr)
    logging.info("informed %s", 1)
    logging.getLogger("app").warning("two\\nlines")
    try:
        1 / 0
    except ZeroDivisionError:
        logging.exception("caught")
    return "logged"


def seen(event, context):
    return {
        name: getattr(context, name)
        for name in (
            "aws_request_id", "function_name", "function_version", "invoked_function_arn", "memory_limit_in_mb",
            "log_group_name", "log_stream_name", "tenant_id",
        )
    } | {
        "remaining": 0 < context.get_remaining_time_in_millis() <= 60_000,
        "identity": [context.identity.cognito_identity_id, context.identity.cognito_identity_pool_id],
        "custom": context.client_context and context.client_context.custom,
        "app": context.client_context and context.client_context.client.app_title,
        "trace": os.environ.get("_X_AMZN_TRACE_ID"),
        "calls": len(calls),
    }


ACTS = {
    "event": lambda event, context: event,
    "none": lambda event, context: None,
    "text": lambda event, context: "h\\u00e9 \\u2028",
    "decimal": lambda event, context: [decimal.Decimal("1.50"), 2**70, 1e300, True, None],
    "named": lambda event, context: Point(1, [2]),
    "not a number": lambda event, context: float("nan"),
    "set": lambda event, context: {1},
    "coroutine": lambda event, context: (_ for _ in ()),
    "raises": raises,
    "nested": nested,
    "log": log,
    "seen": seen,
    "key": lambda event, context: {1: "one", None: "none"},
}
"""
BROKEN = {
    "missing": "gone.act",
    "no such function": "contract_handlers.gone",
    "no dot": "act",
    "does not parse": "unparsable.act",
    "raises at import": "raising_handlers.act",
    "lacks a module": "lacking.act",
    "built in": "sys.act",
}
ACTS = (
    "event", "none", "text", "decimal", "named", "not a number", "set", "coroutine", "raises", "nested", "log", "seen", "key",
)  # fmt: skip
NAME = "both-clients"


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    (folder / "contract_handlers.py").write_text(CODE)
    (folder / "unparsable.py").write_text("def act(:\n    pass\n")
    (folder / "raising_handlers.py").write_text("raise LookupError('at import')\n")
    (folder / "lacking.py").write_text("import no_such_module_at_all\n")
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_pool(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[WorkerPool, FunctionLogs]]:
    folder = tmp_path_factory.mktemp("pool")
    logs = FunctionLogs(folder / "logs")
    pool = WorkerPool(run_folder=folder / "run", logs=logs, clock=SystemClock(), workers_max=4, interpreters=[theirs()])
    pool.trace = lambda _request_id, _name: "Root=1-5759e988-bd862e3fe1be46a994272793"
    await pool.open()
    yield pool, logs
    await pool.close()


@pytest_asyncio.fixture(loop_scope="module")
async def pool(shared_pool: tuple[WorkerPool, FunctionLogs]) -> AsyncIterator[WorkerPool]:
    """Give the pool, and end the workers of a test with it."""
    pool, logs = shared_pool
    yield pool
    pool.retire(NAME, keep_revision=None)
    await wait_until(lambda: not pool._workers and not pool._count, description="workers have ended")
    logs.close()


def theirs() -> Interpreter:
    """AWS's client on the same Python, as a command of `[runtimes]`."""
    program = environment.interpreter()
    start = (
        f"import sys; sys.path.extend({sys.path!r}); from awslambdaric.__main__ import main; main(['', sys.argv[1]])"
    )
    return Interpreter(
        program=program, version="", prefix=sys.base_prefix, language="command", command=(program, "-c", start, "{handler}")
    )  # fmt: skip


async def both(
    pool: WorkerPool, code: Path, handler: str, event: object, context: bytes = b""
) -> tuple[InvocationResult, InvocationResult, str]:
    """Run one event on either side; return both results and the request id."""
    version = FunctionVersion(
        name=NAME, arn=function_arn(NAME), code=str(code), revision=f"ours {handler}", handler=handler, timeout_s=60,
        memory_mb=256,
    )  # fmt: skip
    other = dataclasses.replace(version, revision=f"theirs {handler}", interpreter=theirs(), runtime=INTERPRETER)
    request_id = str(uuid.uuid4())
    invocation = Invocation(
        request_id=request_id, payload=json.dumps(event).encode(), invoked_arn=version.arn, client_context=context
    )
    ours, aws = await asyncio.gather(pool.invoke(version, invocation), pool.invoke(other, invocation))
    return ours, aws, request_id


def comparable(result: InvocationResult) -> object:
    """Return the payload without what differs by nature: each environment's log stream, where its Python is."""
    text = result.payload.decode().replace(os.path.realpath(sys.base_prefix), "/var/lang")
    try:
        value = json.loads(text, parse_constant=str)
    except ValueError:
        return text
    if isinstance(value, dict):
        value.pop("log_stream_name", None)
    return value


def log_lines(result: InvocationResult) -> list[str]:
    """Return what the handler has written, without times; START, END and REPORT are the platform's.

    Of a failed init AWS's client says, too, that an update of AWS's runtime may be the reason, which it is not here.
    """
    lines = result.log_tail.decode().replace(os.path.realpath(sys.base_prefix), "/var/lang").split("\n")
    kept = [line for line in lines if not re.match(r"(START|END|REPORT|INIT_REPORT) ?|.*\tLAMBDA_WARNING: ", line)]
    return [re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "TIME", line) for line in kept]


@pytest.mark.parametrize("act", ACTS)
async def test_a_handler(pool: WorkerPool, code: Path, act: str) -> None:
    context = b'{"custom": {"a": "b"}, "client": {"app_title": "t"}}' if act == "seen" else b""
    ours, aws, _ = await both(pool, code, "contract_handlers.act", {"act": act, "é": [1, {"x": None}]}, context)

    assert ours.kind == aws.kind
    assert comparable(ours) == comparable(aws)
    assert log_lines(ours) == log_lines(aws)
    if act in {"event", "text", "decimal", "named"}:
        assert ours.payload == aws.payload  # to the byte


@pytest.mark.parametrize("handler", BROKEN.values(), ids=BROKEN.keys())
async def test_what_cannot_be_imported(pool: WorkerPool, code: Path, handler: str) -> None:
    ours, aws, _ = await both(pool, code, handler, {})

    assert ours.kind == aws.kind
    assert comparable(ours) == comparable(aws)
    assert log_lines(ours) == log_lines(aws)

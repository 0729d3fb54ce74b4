"""A handler sees what it sees on Lambda, and every way it can end is told as Lambda tells it."""

import asyncio
import json
import re
import sys
import time
from dataclasses import replace

import pytest

from bridge.core.invocation import ResultKind
from tests.unit.runtime.conftest import LONG_S

pytestmark = pytest.mark.asyncio(loop_scope="module")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


async def error_of(runner, handler, event=None, **fields):
    result = await runner.run(handler, event, **fields)

    assert result.kind is ResultKind.FUNCTION_ERROR
    error = json.loads(result.payload)
    assert result.error_type == error["errorType"]
    assert result.error_message == error["errorMessage"][:1024]
    return result, error


async def test_returns_the_event(runner):
    result = await runner.run("app.echo", {"a": [1, None, "é"]})

    assert result.kind is ResultKind.OK
    assert json.loads(result.payload) == {"a": [1, None, "é"]}
    assert result.version == "$LATEST"
    assert result.billed_ms == -int(-result.duration_ms // 1)
    assert result.init_ms is not None
    assert result.memory_used_mb > 0


async def test_only_a_cold_start_has_init_time(runner):
    assert (await runner.run("app.echo")).init_ms is not None
    assert (await runner.run("app.echo")).init_ms is None


async def test_an_empty_payload_is_an_empty_object(runner):
    invocation = runner.invocation()
    object.__setattr__(invocation, "payload", b"")

    result = await runner.run("app.echo", invocation=invocation)

    assert result.payload == b"{}"


async def test_a_large_event_and_answer_pass_whole(runner):
    text = "x" * (5 << 20)

    result = await runner.run("app.echo", text, memory_mb=512)

    assert result.payload == json.dumps(text).encode()


async def test_integers_stay_exact(runner):
    assert await runner.value("app.echo", 2**70 + 1) == 2**70 + 1


async def test_context(runner):
    invocation = runner.invocation(client_context=b'{"custom": {"k": "v"}, "client": {"app_title": "t"}}')
    result = await runner.run("app.context", invocation=invocation, timeout_s=7, memory_mb=256)

    seen = json.loads(result.payload)
    assert 5_000 < seen.pop("remaining") <= 7_000
    assert seen.pop("text").startswith("LambdaContext([aws_request_id=")
    assert seen == {
        "aws_request_id": invocation.request_id,
        "function_name": "sample",
        "function_version": "$LATEST",
        "invoked_function_arn": invocation.invoked_arn,
        "memory_limit_in_mb": "256",
        "log_group_name": "/aws/lambda/sample",
        "log_stream_name": result.log_stream,
        "identity": [None, None],
        "custom": {"k": "v"},
        "client": "t",
        "tenant_id": None,
    }
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", result.log_stream)


async def test_a_client_context_that_is_not_json(runner):
    _, error = await error_of(runner, "app.echo", invocation=runner.invocation(client_context=b"{"))

    assert error["errorType"] == "Runtime.LambdaContextUnmarshalError"


async def test_environment_and_paths(runner):
    seen = await runner.value("app.who", environment={"STAGE": "prod", "TZ": "Europe/Berlin"})

    environment = seen["environment"]
    root = environment["LAMBDA_TASK_ROOT"]
    assert seen["folder"] == root
    assert seen["file"] == f"{root}/app.py"
    assert seen["path"][0] == root
    assert seen["path"][-1].endswith(("packages", "/var/runtime"))
    assert seen["foreign"] == []
    assert environment["STAGE"] == "prod"
    assert environment["TZ"] == "Europe/Berlin"
    assert environment["AWS_EXECUTION_ENV"] == f"AWS_Lambda_python{PYTHON}"
    assert environment["_HANDLER"] == "app.who"
    assert environment["AWS_REGION"] == environment["AWS_DEFAULT_REGION"] == "us-east-1"
    assert environment["AWS_LAMBDA_INITIALIZATION_TYPE"] == "on-demand"
    assert environment["PYTHONPATH"] == "/var/runtime"
    assert not {"HOME", "USER", "VIRTUAL_ENV", "BRIDGE_STATE", "AWS_ACCESS_KEY_ID"} & set(environment)


async def test_the_daemons_environment_stays_out(runner, monkeypatch):
    monkeypatch.setenv("CANARY", "secret")

    seen = await runner.value("app.who")

    assert "CANARY" not in seen["environment"]
    found = await runner.code("answer = b'CANARY' in open('/proc/self/environ','rb').read()")
    assert found is False


async def test_a_trace_header_is_set_per_invocation(runner, monkeypatch):
    monkeypatch.setattr(runner.pool, "trace", lambda request_id, name: f"Root={name} {request_id}")
    code = {"code": "import os; answer = os.environ.get('_X_AMZN_TRACE_ID')"}
    invocations = [runner.invocation(code) for _ in range(2)]

    results = [await runner.run("app.run", invocation=each) for each in invocations]

    assert [json.loads(each.payload) for each in results] == [f"Root=sample {each.request_id}" for each in invocations]


async def test_packages_are_importable(runner):
    assert await runner.code("import packaged; answer = packaged.VALUE") == 1


async def test_globals_live_as_long_as_the_worker(runner):
    first = await runner.value("app.count")
    second = await runner.value("app.count")

    assert (first["calls"], second["calls"]) == (1, 2)
    assert first["loaded_at"] == second["loaded_at"]


async def test_nested_handler(runner):
    assert await runner.value("dir/nested.handler") == "dir.nested"


# --- errors ---------------------------------------------------------------------------------------------------


async def test_exception(runner):
    invocation = runner.invocation("boom")
    _, error = await error_of(runner, "app.fail", invocation=invocation)

    line = next(
        n for n, text in enumerate(open(f"{runner.version('x').code}/app.py"), 1) if "raise ValueError(event)" in text
    )
    assert error == {
        "errorMessage": "boom",
        "errorType": "ValueError",
        "requestId": invocation.request_id,
        "stackTrace": [f'  File "/var/task/app.py", line {line}, in fail\n    raise ValueError(event)\n'],
    }


async def test_a_handler_that_raises_keeps_its_worker(runner):
    code = {"code": "import os; answer = os.getpid()"}
    before = (await runner.run("app.run", code)).log_stream
    await runner.run("app.run", {"code": "1/0"})

    assert (await runner.run("app.run", code)).log_stream == before


async def test_an_exception_without_words(runner):
    _, error = await error_of(runner, "app.fail_unspeakably")

    assert error["errorType"] == "Unspeakable"
    assert error["errorMessage"]


async def test_a_megabyte_of_message_is_capped(runner):
    result, error = await error_of(runner, "app.fail_at_length")

    assert 1024 < len(error["errorMessage"]) <= 256 * 1024
    assert len(result.log_tail) == 4096


@pytest.mark.parametrize(
    ("handler", "error_type", "message"),
    [
        ("app", "Runtime.MalformedHandlerName", "Bad handler 'app': not enough values to unpack (expected 2, got 1)"),
        ("app.nope", "Runtime.HandlerNotFound", "Handler 'nope' missing on module 'app'"),
        ("nope.f", "Runtime.ImportModuleError", "Unable to import module 'nope': No module named 'nope'"),
        (
            "importing.f",
            "Runtime.ImportModuleError",
            "Unable to import module 'importing': No module named 'no_such_module'",
        ),
        ("sys.exit", "Runtime.BuiltInModuleConflict", "Cannot use built-in module sys as a handler module"),
        ("raising.f", "LookupError", "at import"),
    ],
)
async def test_init_errors(runner, handler, error_type, message):
    result, error = await error_of(runner, handler)

    assert (error["errorType"], error["errorMessage"], error["requestId"]) == (error_type, message, "")
    assert result.log_tail.startswith(b"[ERROR] " + error_type.encode())


async def test_syntax_error(runner):
    _, error = await error_of(runner, "broken.handler")

    assert error["errorType"] == "Runtime.UserCodeSyntaxError"
    assert error["errorMessage"].startswith("Syntax error in module 'broken': '(' was never closed (broken.py, line 2)")
    assert error["stackTrace"] == ['  File "/var/task/broken.py" Line 2\n        return (\n']


async def test_an_init_error_replaces_the_worker(runner):
    first, _ = await error_of(runner, "raising.f")
    second, _ = await error_of(runner, "raising.f")

    assert first.log_stream != second.log_stream


async def test_exit_at_import(runner):
    result, error = await error_of(runner, "leaving.f")

    assert error["errorType"] == "Runtime.ExitError"
    assert error["errorMessage"].endswith("Error: Runtime exited with error: exit status 3")
    assert b"leaving\n" in result.log_tail


@pytest.mark.parametrize(
    ("handler", "event", "text"),
    [
        ("app.leave", 0, "Runtime exited without providing a reason"),
        ("app.leave", 7, "Runtime exited with error: exit status 7"),
        ("app.leave", "words", "Runtime exited with error: exit status 1"),
        ("app.leave_hard", 127, "Runtime exited with error: exit status 127"),
        ("app.interrupt", None, "Runtime exited with error: exit status 1"),
        ("app.signal_self", 9, "Runtime exited with error: signal: killed"),
        ("app.signal_self", 11, "Runtime exited with error: signal: segmentation fault"),
    ],
)
async def test_exits(runner, handler, event, text):
    invocation = runner.invocation(event)
    result, error = await error_of(runner, handler, invocation=invocation)

    assert error == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {invocation.request_id} Error: {text}",
    }
    assert f"RequestId: {invocation.request_id} Error: {text}\nRuntime.ExitError\n".encode() in result.log_tail
    assert await runner.value("app.echo", 1) == 1


@pytest.mark.parametrize(
    ("what", "payload"),
    [
        ("none", b"null"),
        ("nan", b"NaN"),
        ("bytes", b"\x00raw"),
        ("decimal", b'{"n": 1.50}'),
        ("big", str(2**70).encode()),
        ("text", '"é"'.encode() if sys.version_info >= (3, 12) else b'"\\u00e9"'),
    ],
)
async def test_results(runner, what, payload):
    result = await runner.run("app.result", what)

    assert result.kind is ResultKind.OK, result
    assert result.payload == payload


@pytest.mark.parametrize("what", ["set", "generator", "circle", "deep"])
async def test_results_that_are_no_json(runner, what):
    _, error = await error_of(runner, "app.result", what)

    assert error["errorType"] == "Runtime.MarshalError"
    assert error["errorMessage"].startswith("Unable to marshal response: ")
    assert error["stackTrace"] == []


async def test_a_lone_surrogate_is_escaped_or_refused(runner):
    result = await runner.run("app.result", "surrogate")

    assert (
        (result.payload == b'"\\ud800"') if sys.version_info < (3, 12) else result.error_type == "Runtime.MarshalError"
    )


async def test_a_coroutine_is_no_result(runner):
    _, error = await error_of(runner, "app.coroutine")

    assert error["errorMessage"] == "Unable to marshal response: Object of type coroutine is not JSON serializable"


async def test_an_event_that_is_no_json(runner):
    invocation = runner.invocation()
    object.__setattr__(invocation, "payload", b"{nope")

    _, error = await error_of(runner, "app.echo", invocation=invocation)

    assert error["errorType"] == "Runtime.UnmarshalError"


@pytest.mark.slow
async def test_timeout(runner):
    invocation = runner.invocation(30)
    result, error = await error_of(runner, "app.sleep", invocation=invocation, timeout_s=1)

    text = f"RequestId: {invocation.request_id} Error: Task timed out after 1.00 seconds"
    assert error == {"errorType": "Sandbox.Timedout", "errorMessage": text}
    assert result.duration_ms >= 1000
    assert f" {invocation.request_id} Task timed out after 1.00 seconds\n".encode() in result.log_tail
    assert b"\tStatus: timeout\t\n" in result.log_tail


@pytest.mark.slow
async def test_scratch_space_survives_a_timeout_and_nothing_else_does(runner):
    version = runner.version("app.run", timeout_s=1)
    code = "open('/tmp/kept','w').close(); import time; time.sleep(30)"
    await runner.pool.invoke(
        version, runner.invocation({"code": code.replace("/tmp", "{0}").format(await scratch(runner, version))})
    )

    names = await runner.pool.invoke(
        replace(version, timeout_s=LONG_S),
        runner.invocation({"code": "import os; answer=os.listdir(os.environ.get('TMPDIR','/tmp'))"}),
    )
    other = await runner.value("app.keep_file", "mine")

    assert names.init_ms is not None
    assert json.loads(names.payload) == ["kept"]
    assert other == []


async def scratch(runner, version):
    found = await runner.pool.invoke(
        replace(version, timeout_s=LONG_S),
        runner.invocation({"code": "import os; answer=os.environ.get('TMPDIR','/tmp')"}),
    )
    return json.loads(found.payload)


async def test_two_live_workers_share_no_scratch_space(runner):
    code = {
        "code": "import os,time; d=os.environ.get('TMPDIR','/tmp'); open(f'{d}/{os.urandom(4).hex()}','w').close(); time.sleep(0.1); answer=len(os.listdir(d))"
    }

    results = await asyncio.gather(*(runner.run("app.run", code) for _ in range(3)))

    assert [result.payload for result in results] == [b"1", b"1", b"1"]


# --- init that takes too long -----------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_slow_init_runs_again_under_the_functions_timeout(runner, monkeypatch):
    monkeypatch.setattr("bridge.core.limits.INIT_MAX_S", 0.2)
    began = time.monotonic()

    result, error = await error_of(runner, "hesitating.handler", timeout_s=1)

    assert error["errorMessage"].endswith("Task timed out after 1.00 seconds")
    assert time.monotonic() - began >= 1.2
    assert result.log_tail.count(b"START") == 1


# --- logs -------------------------------------------------------------------------------------------------------


async def test_the_log_tail_holds_everything_in_order(runner):
    invocation = runner.invocation()
    result = await runner.run("app.speak", invocation=invocation)

    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]{12}Z", "TIME", result.log_tail.decode())
    request_id = invocation.request_id
    assert text.splitlines()[:9] == [
        f"START RequestId: {request_id} Version: $LATEST",
        "on stdout",
        "on stderr",
        "on descriptor 1",
        f"[WARNING]\tTIME\t{request_id}\ta warning",
        f"[ERROR]\tTIME\t{request_id}\tan error",
        "by the context",
        "from a child",
        "no newlinefrom C",
    ]
    assert re.fullmatch(
        rf"END RequestId: {request_id}\nREPORT RequestId: {request_id}\tDuration: [\d.]+ ms\tBilled Duration: \d+ ms\t"
        r"Memory Size: 128 MB\tMax Memory Used: \d+ MB\tInit Duration: [\d.]+ ms\t\n",
        "\n".join(text.splitlines()[9:]) + "\n",
    )


async def test_an_exception_is_one_log_record(runner):
    result = await runner.run("app.fail", "boom")

    assert (
        '[ERROR] ValueError: boom\rTraceback (most recent call last):\r\u00a0\u00a0File "/var/task/app.py", line '
        in result.log_tail.decode()
    )


async def test_logs_go_to_a_file_of_the_stream(runner):
    result = await runner.run("app.speak_id")

    lines = [line async for line in runner.logs.tail("sample", lines=4, follow=False)]

    assert [stream for _, stream, _ in lines] == [result.log_stream] * 4
    assert lines[1][2].startswith("I am ")
    assert abs(lines[0][0] - time.time()) < 60


# --- exec'd workers ---------------------------------------------------------------------------------------------


async def test_loader_variables_make_it_an_exec(runner):
    seen = await runner.value("app.who", environment={"PYTHONHASHSEED": "7", "LD_LIBRARY_PATH": "/x"})

    assert seen["environment"]["LD_LIBRARY_PATH"] == "/x"
    assert seen["path"][0] == seen["environment"]["LAMBDA_TASK_ROOT"]
    assert seen["foreign"] == []
    hashed = "answer = hash('x')"
    first = await runner.code(hashed, environment={"PYTHONHASHSEED": "7"})
    await runner.clear()
    assert await runner.code(hashed, environment={"PYTHONHASHSEED": "7"}) == first


async def test_a_lib_folder_makes_it_an_exec(runner, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "app.py").write_text("import sys\ndef handler(e, c): return sys.flags.isolated\n")
    tmp_path.chmod(0o755)

    assert await runner.value("app.handler", code=str(tmp_path)) == 0


async def test_an_exec_wrapper_runs_first(runner, tmp_path):
    wrapper = tmp_path / "wrap"
    wrapper.write_text('#!/bin/sh\nexport WRAPPED=yes\nexec "$@"\n')
    wrapper.chmod(0o755)
    (tmp_path / "app.py").write_text(
        "import os\ndef handler(e, c): return open('/proc/self/environ').read().count('WRAPPED=yes')\n"
    )
    tmp_path.chmod(0o755)

    answer = await runner.value(
        "app.handler", code=str(tmp_path), environment={"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/wrap"}
    )

    assert answer == 1

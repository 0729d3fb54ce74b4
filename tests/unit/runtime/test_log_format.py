"""Logs in JSON (semantics 6.7): the platform's objects, the logger's, errors, and what levels leave out."""

import json
import logging
import re
import sys

import pytest

from bridge.core.function import FunctionVersion, function_arn
from bridge.core.logging_config import LoggingConfig
from bridge.runtime import results
from bridge.runtime.log_records import JsonFormatter, level_of
from bridge.runtime.platform_lines import platform_lines
from bridge.runtime.results import Report

pytestmark = pytest.mark.asyncio(loop_scope="module")

AT = 1_767_225_600.5
STAMP = "2026-01-01T00:00:00.500Z"
JSON = LoggingConfig(is_json=True)


def written(text: bytes) -> list[object]:
    """Return the lines, those that are JSON as what they say."""
    lines = text.decode().splitlines()
    return [json.loads(line) if line.startswith("{") else line for line in lines]


def levels(application: str = "INFO", system: str = "INFO") -> LoggingConfig:
    return LoggingConfig(is_json=True, application_level=application, system_level=system)


def lines_of(config: LoggingConfig):
    version = FunctionVersion(name="f", arn=function_arn("f"), code="", revision="1", handler="a.b", logging=config)
    return platform_lines(version)


# --- workers --------------------------------------------------------------------------------------------------------
async def test_platform_logger_and_prints_of_one_invocation(runner):
    code = (
        "import logging; log = logging.getLogger('shop')\n"
        "log.info('at %s', 'info', extra={'order': 7}); log.debug('unseen'); print('plain'); answer = 1"
    )
    invocation = runner.invocation({"code": code})
    result = await runner.run("app.run", invocation=invocation, logging=JSON)

    request_id = invocation.request_id
    start, told, plain, report = written(result.log_tail)
    assert start == {
        "time": start["time"], "type": "platform.start", "record": {"requestId": request_id, "version": "$LATEST"},
    }  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", start["time"])
    assert told == {
        "timestamp": told["timestamp"], "level": "INFO", "message": "at info", "logger": "shop",
        "requestId": request_id, "order": 7,
    }  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", told["timestamp"])
    assert plain == "plain"
    assert report["type"] == "platform.report"
    assert report["record"]["status"] == "success"
    assert set(report["record"]["metrics"]) == {
        "durationMs", "billedDurationMs", "memorySizeMB", "maxMemoryUsedMB", "initDurationMs",
    }  # fmt: skip


async def test_an_invocation_that_writes_nothing(runner):
    await runner.run("app.echo", logging=JSON)
    result = await runner.run("app.echo", logging=JSON)

    start, report = written(result.log_tail)
    assert [start["type"], report["type"]] == ["platform.start", "platform.report"]
    assert "initDurationMs" not in report["record"]["metrics"]


async def test_an_error_that_nobody_caught(runner):
    invocation = runner.invocation("boom")
    result = await runner.run("app.fail", invocation=invocation, logging=levels("FATAL"))
    _, report = written(result.log_tail)
    shown = await runner.run("app.fail", invocation=invocation, logging=levels("ERROR"))

    _, error, _ = written(shown.log_tail)
    assert report["type"] == "platform.report"
    assert error == {"timestamp": error["timestamp"], "log_level": "ERROR"} | json.loads(shown.payload)
    assert error["requestId"] == invocation.request_id


async def test_levels_leave_out_what_is_below(runner):
    code = (
        "import logging, json; logging.warning('w'); logging.error('e'); print(json.dumps({'level': 'debug'}));"
        "print(json.dumps({'level': 'Critical'})); print(json.dumps({'no': 'level'})); print('text'); answer = 1"
    )
    result = await runner.run("app.run", {"code": code}, logging=levels("ERROR", "WARN"))

    lines = [line if isinstance(line, str) else line.get("level") for line in written(result.log_tail)]
    assert lines == ["ERROR", "Critical", "text"]


async def test_an_end_that_is_a_failure_is_a_warning(runner):
    result = await runner.run("app.leave_hard", 3, logging=levels(system="WARN"))

    done, report = written(result.log_tail)
    assert [done["type"], report["type"]] == ["platform.runtimeDone", "platform.report"]
    for each in (done, report):
        assert (each["record"]["status"], each["record"]["errorType"]) == ("error", "Runtime.ExitError")


@pytest.mark.parametrize("environment", [{}, {"PYTHONHASHSEED": "7"}], ids=["forked", "exec'd"])
async def test_what_the_function_sees(runner, environment):
    config = LoggingConfig(is_json=True, application_level="TRACE", group="/shop/all")
    seen = await runner.value("app.context", environment=environment, logging=config)
    found = await runner.value("app.who", environment=environment, logging=config)

    assert seen["log_group_name"] == "/shop/all"
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/sample\[\$LATEST\][0-9a-f]{32}", seen["log_stream_name"])
    names = ("AWS_LAMBDA_LOG_FORMAT", "AWS_LAMBDA_LOG_LEVEL", "AWS_LAMBDA_LOG_GROUP_NAME")
    assert [found["environment"][name] for name in names] == ["JSON", "TRACE", "/shop/all"]
    assert found["foreign"] == []


async def test_text_says_nothing_of_formats(runner):
    found = await runner.value("app.who")

    assert not {"AWS_LAMBDA_LOG_FORMAT", "AWS_LAMBDA_LOG_LEVEL"} & set(found["environment"])


async def test_a_stream_of_a_shared_group_keeps_its_name(runner):
    config = LoggingConfig(group="/shop/all")
    result = await runner.run("app.speak_id", name="my_fn", logging=config)

    lines = [line async for line in runner.logs.tail("my_fn", lines=4, follow=False)]
    assert {stream for _, stream, _ in lines} == {result.log_stream}


# --- the platform's lines -------------------------------------------------------------------------------------------
async def test_debug_shows_every_step():
    lines = lines_of(levels(system="DEBUG"))

    (init,) = written(lines.initialised(12.345, at=AT))
    done, report = written(lines.end("id", Report(1.234, 128, 40, 12.345), at=AT))
    assert init == {
        "time": STAMP,
        "type": "platform.initReport",
        "record": {
            "initializationType": "on-demand", "phase": "init", "status": "success", "metrics": {"durationMs": 12.35},
        },
    }  # fmt: skip
    assert done["record"] == {"requestId": "id", "status": "success", "metrics": {"durationMs": 1.23}}
    assert report["record"] == {
        "requestId": "id",
        "metrics": {
            "durationMs": 1.23, "billedDurationMs": 2, "memorySizeMB": 128, "maxMemoryUsedMB": 40,
            "initDurationMs": 12.35,
        },
        "status": "success",
    }  # fmt: skip


async def test_a_timeout_and_an_init_that_failed():
    lines = lines_of(levels(system="WARN"))
    timeout = results.timed_out(3)

    _, report = written(lines.end("id", Report(3000.0, 128, 40, None, timeout.report_status), at=AT))
    (init,) = written(
        lines.init_failed(5.0, in_invocation=True, status="error", error_type="Runtime.ImportModuleError", at=AT)
    )
    assert lines.failure(timeout, "id", time_text=b"") == b""
    assert report["record"]["status"] == "timeout"
    assert "errorType" not in report["record"]
    assert (init["record"]["phase"], init["record"]["errorType"]) == ("invoke", "Runtime.ImportModuleError")


async def test_trace_keeps_everything_without_a_look():
    assert lines_of(levels("TRACE")).filters is False
    assert lines_of(levels("DEBUG")).kept(b'{"level": "trace"}\n{broken\n{"level": 5}\n') == b'{broken\n{"level": 5}\n'


# --- the logger's records -------------------------------------------------------------------------------------------
async def test_a_record_of_an_exception():
    try:
        raise KeyError("gone")
    except KeyError:
        record = logging.LogRecord("n", 35, "/real/app.py", 7, "it %s", ("failed",), sys.exc_info(), "handle")

    told = json.loads(JsonFormatter(lambda path: path.replace("/real", "/var/task")).format(record))
    assert list(told) == [
        "timestamp", "level", "message", "logger", "stackTrace", "errorType", "errorMessage", "requestId", "location",
    ]  # fmt: skip
    assert (told["level"], told["message"]) == ("WARNING", "it failed")
    assert (told["errorType"], told["errorMessage"]) == ("KeyError", "'gone'")
    assert told["location"] == "/var/task/app.py:handle:7"
    assert 'raise KeyError("gone")' in told["stackTrace"][-1]


async def test_extras_without_json_fail_the_call_as_on_aws():
    record = logging.makeLogRecord({"msg": "x", "thing": object()})

    with pytest.raises(TypeError):
        JsonFormatter(str).format(record)


@pytest.mark.parametrize(("name", "level"), [("TRACE", 10), ("warn", 30), ("FATAL", 50), ("", None), ("LOUD", None)])
async def test_levels_of_the_root_logger(name, level):
    assert level_of(name) == level

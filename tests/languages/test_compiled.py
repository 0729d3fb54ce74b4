"""A Go function on aws-lambda-go and a Java function on AWS's client: answers, errors, context, log and ends."""

import json

import pytest

from tests.languages.conftest import go, java

ONLY_GO = pytest.mark.parametrize("shared_compiled", [go], ids=["go"], indirect=True)
ONLY_JAVA = pytest.mark.parametrize("shared_compiled", [java], ids=["java"], indirect=True)
pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


async def test_answers_by_one_process(compiled):
    values = ("hé \u2028", [1, {"a": "b"}], 5, "x" * 1_000_000)
    results = [await compiled.run({"act": "echo", "value": value}) for value in values]

    assert [json.loads(result.payload) for result in results] == list(values)
    assert [result.init_ms is not None for result in results] == [True, False, False, False]


async def test_the_context(compiled, monkeypatch):
    monkeypatch.setattr(compiled.runner.pool, "trace", lambda request_id, name: "Root=1-abc")
    invocation = compiled.runner.invocation({"act": "context"}, client_context=b'{"custom": {"k": "v"}}')
    result = await compiled.run(invocation=invocation, timeout_s=300)
    seen = json.loads(result.payload)

    assert 0 < seen.pop("left_ms") <= 300_000
    name = compiled.fields["name"]
    assert seen == {
        "request_id": invocation.request_id,
        "arn": invocation.invoked_arn,
        "custom": {"k": "v"},
        "name": name,
        "version": "$LATEST",
        "memory": compiled.fields["memory_mb"],
        "group": f"/aws/lambda/{name}",
        "stream": result.log_stream,
        "trace": "Root=1-abc",
    }


async def test_an_error_is_the_invocations_and_not_the_process(compiled):
    error = await compiled.error({"act": "error"})
    kind = {"go-function": "refused", "java-function": "Handlers$Refused"}[compiled.fields["name"]]

    assert (error["errorMessage"], error["errorType"]) == ("not so", kind)
    again = await compiled.run({"act": "echo", "value": 1})
    assert again.is_ok
    assert again.init_ms is None


async def test_what_it_writes_is_in_its_log(compiled):
    lines = (await compiled.run({"act": "log"})).log_tail.decode().splitlines()

    assert lines[0].startswith("START ")
    assert "printed" in lines
    assert "logged" in lines


async def test_its_exit(compiled):
    error = await compiled.error({"act": "exit"})
    assert error["errorType"] == "Runtime.ExitError"
    assert error["errorMessage"].endswith(" Error: Runtime exited with error: exit status 3")
    assert await compiled.value({"act": "echo", "value": 1}) == 1  # by a new one


@ONLY_GO
async def test_a_panic_is_told_and_ends_the_process(compiled):
    error = await compiled.error({"act": "panic"})
    assert (error["errorMessage"], error["errorType"]) == ("in the middle", "string")
    assert any(frame["label"] == "handle" for frame in error["stackTrace"])
    again = await compiled.run({"act": "echo", "value": 1})
    assert again.is_ok
    assert again.init_ms is not None


@ONLY_GO
async def test_a_deadline_that_passes(compiled):
    assert (await compiled.error({"act": "sleep"}, timeout_s=1))["errorType"] == "Sandbox.Timedout"


@ONLY_JAVA
async def test_a_stack_trace_a_handler_of_streams_and_one_that_is_not_there(compiled):
    assert (await compiled.error({"act": "error"}))["stackTrace"][0].startswith("Handlers.handle(Handlers.java:")
    assert (await compiled.run({"a": 1}, "Handlers")).payload == b'<{"a": 1}>'
    assert (await compiled.error({}, "Gone::handle"))["errorType"] == "java.lang.ClassNotFoundException"

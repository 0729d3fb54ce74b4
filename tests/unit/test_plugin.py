"""The pytest plugin as a user has it: each test writes a project, runs pytest in it, and looks at what came of it."""

import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable

import pytest

import bridge.daemon.trial  # noqa: F401 - pytester forgets what an inner run imports
from tests.harness import ROOT

pytest_plugins = ("pytester",)

CONFIG = """
[functions.clicks]
code = "functions/clicks"
handler = "app.handler"
environment = { STAGE = "test" }
event_invoke = { maximum_retry_attempts = 2 }

[mappings.clicks]
source = "local://clicks?as=kafka"
function = "clicks"
"""
HANDLER = """
import base64, json

def values(event):
    return [json.loads(base64.b64decode(r["value"])) for part in event["records"].values() for r in part]

def handler(event, context):
    print("got", len(values(event)))
    return [1 / (value["page"] != "bad") for value in values(event)]
"""
Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return `run(test, config=…, handler=…)`: writes a project and runs its tests, with the plugin alone."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("HOOK_SECRET", "not looked at in tests")

    def run(test: str, *options: str, config: str = CONFIG, handler: str = HANDLER, **files: str) -> pytest.RunResult:
        written = {"bridge.toml": config, "functions/clicks/app.py": handler, "test_it.py": test}
        for name, text in {**written, **{name.replace("__", "/"): text for name, text in files.items()}}.items():
            path = pytester.path / (name if "." in name else f"{name}.py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return pytester.runpytest_inprocess("-p", "bridge.plugin", "-p", "no:cacheprovider", "-q", *options)

    return run


def test_a_kafka_handler_is_given_what_was_put_as_one_batch(run: Run) -> None:
    result = run("""
        def test(put, drain, invocations, dead_letters, capsys):
            put("clicks", {"page": "/"}, key="ada", headers={"trace": "1"})
            put("clicks", b'{"page": "/about"}', key=b"ada")
            put("clicks", '{"page": "/news"}', key="ada")
            assert invocations == []

            assert drain() == []

            assert [i.values for i in invocations] == [[{"page": "/"}, {"page": "/about"}, {"page": "/news"}]]
            assert invocations[0].result == [1.0, 1.0, 1.0]
            assert (invocations[0].function, invocations[0].attempt, invocations[0].error) == ("clicks", 1, None)
            event = invocations[0].event
            assert event["eventSource"] == "SelfManagedKafka"
            [record, *_] = [r for part in event["records"].values() for r in part]
            assert record["key"] == "YWRh" and record["headers"] == [{"trace": [49]}]
            assert dead_letters == []
            assert capsys.readouterr().out == "got 3\\n"
    """)

    result.assert_outcomes(passed=1)


def test_a_bad_record_is_found_by_bisecting_and_retried_in_virtual_time(run: Run) -> None:
    config = CONFIG + "maximum_retry_attempts = 20\nbisect_batch_on_function_error = true\n"

    result = run(
        """
        import time

        def test(bridge_app, put, drain, invocations, dead_letters):
            for number in range(8):
                put("clicks", {"page": "bad" if number == 5 else number}, key="ada")
            began, before = time.perf_counter(), bridge_app.now

            assert drain() == []

            assert time.perf_counter() - began < 60 < bridge_app.now - before
            bad = [i for i in invocations if i.values == [{"page": "bad"}]]
            assert [i.attempt for i in bad] == list(range(1, 22))
            assert bad[0].at < bad[1].at < bad[2].at
            assert bad[0].error["errorType"] == "ZeroDivisionError" and bad[0].result is None
            assert "app.py" in bad[0].error["stackTrace"][0]
            [dead] = dead_letters
            assert dead.condition == "RetryAttemptsExhausted" and dead.values == [{"page": "bad"}]
            assert (dead.function, dead.source, dead.error_type) == ("clicks", "clicks", "ZeroDivisionError")
            assert dead.outcome["KafkaBatchInfo"]["batchSize"] == 1
            handled = [v["page"] for i in invocations if i.error is None for v in i.values]
            assert handled == [0, 1, 2, 3, 4, 6, 7]
        """,
        config=config,
    )

    result.assert_outcomes(passed=1)


def test_only_what_a_partial_answer_names_is_tried_again(run: Run) -> None:
    handler = """
        failures = 2

        def handler(event, context):
            global failures
            records = [r for part in event["records"].values() for r in part]
            if len(records) > 2 or failures == 0:
                return {"batchItemFailures": []} if failures == 0 else fail(records[1])
            failures -= 1
            return fail(records[0])

        def fail(record):
            name = f"{record['topic']}-{record['partition']}"
            failed = {"topic-partition": name, "offset": record["offset"]}
            return {"batchItemFailures": [{"itemIdentifier": failed}]}
    """
    config = CONFIG + 'function_response_types = ["ReportBatchItemFailures"]\n'

    result = run(
        """
        def test(put, drain, invocations, dead_letters):
            for number in range(3):
                put("clicks", number, key="ada")

            assert drain() == []

            assert [i.values for i in invocations] == [[0, 1, 2], [1], [1], [1]]
            assert [i.attempt for i in invocations] == [1, 1, 2, 3]
            assert dead_letters == []
        """,
        config=config,
        handler=handler,
    )

    result.assert_outcomes(passed=1)


def test_a_batch_without_limits_waits_for_ever_and_drain_says_so(run: Run) -> None:
    result = run("""
        def test(put, drain, invocations, dead_letters):
            put("clicks", {"page": "bad"})

            [line] = drain()

            assert line.startswith("mapping clicks: 1 record of clicks-")
            assert "tried 10 times" in line and "ZeroDivisionError: " in line
            assert [i.attempt for i in invocations] == list(range(1, 11))
            assert dead_letters == []
            [line] = drain(attempts=12)
            assert len(invocations) == 12
    """)

    result.assert_outcomes(passed=1)


WEBHOOKS = """
[functions.clicks]
code = "functions/clicks"
handler = "app.handler"

[sources.hook]
type = "webhook"
path = "/hooks/clicks"
function = "clicks"
verify = { scheme = "github", secrets = [{ env = "HOOK_SECRET" }] }

[sources.ask]
type = "webhook"
path = "/ask"
function = "clicks"
verify = "none"
invocation_type = "RequestResponse"
"""


def test_webhooks_are_events_of_api_gateway_with_lambdas_retries(run: Run) -> None:
    handler = """
        import json

        def handler(event, context):
            assert event["version"] == "2.0" and event["rawPath"] in ("/hooks/clicks", "/ask")
            body = json.loads(event["body"])
            if event["rawPath"] == "/ask":
                return {"statusCode": 201, "body": body["name"] + event["rawQueryString"]}
            raise LookupError(body["name"])
    """

    result = run(
        """
        def test(bridge_app, put, drain, invocations, dead_letters):
            answer = put("hook", {"name": "Ada"}, headers={"X-Trace": "7"})
            assert answer.status == 202 and answer.json()["id"]

            assert drain() == []

            assert [round(i.at - invocations[0].at) for i in invocations] == [0, 60, 180]
            assert [i.attempt for i in invocations] == [1, 2, 3]
            assert {i.request_id for i in invocations} == {answer.json()["id"]}
            assert invocations[0].event["headers"]["x-trace"] == "7"
            assert invocations[0].values == [{"name": "Ada"}]
            [dead] = dead_letters
            assert (dead.condition, dead.attempts, dead.error_message) == ("RetriesExhausted", 3, "Ada")

        def test_an_answer(put, invocations):
            answer = put("ask", {"name": "Ada"}, query="&x=1")
            assert (answer.status, answer.body) == (201, b"Ada&x=1")
            assert len(invocations) == 1
            assert put("ask", {"name": "Ada"}, method="TRACE").status == 405
        """,
        config=WEBHOOKS,
        handler=handler,
    )

    result.assert_outcomes(passed=2)


def test_routes_of_other_formats_answer_as_they_do_in_a_daemon(run: Run) -> None:
    route = """
        [sources.{name}]
        type = "webhook"
        path = "/{name}"
        function = "clicks"
        verify = "none"
        invocation_type = "RequestResponse"
        format = "{format}"
    """
    handler = """
        def handler(event, context):
            if "requestContext" in event:
                return {"statusCode": 200, "headers": {"x-seen": event["headers"]["X-Id"]}, "extra": 1}
            return {"given": event}
    """
    functions = """
        [functions.clicks]
        code = "functions/clicks"
        handler = "app.handler"
    """

    result = run(
        """
        def test(put, invocations):
            assert put("rest", 1, headers={"X-Id": "7"}).body == b'{"message": "Internal server error"}'
            assert put("skill", {"version": "1.0"}).json() == {"given": {"version": "1.0"}}
            assert put("skill", b"no json").status == 400
            assert [i.values for i in invocations] == [[1], [{"version": "1.0"}]]
            assert invocations[0].event["headers"]["Content-Type"] == "application/json"
            assert invocations[0].event["multiValueHeaders"]["X-Id"] == ["7"]
        """,
        config=functions
        + "".join(route.format(name=n, format=f) for n, f in (("rest", "apigateway-v1"), ("skill", "raw"))),
        handler=handler,
    )

    result.assert_outcomes(passed=1)


def test_a_window_is_ended_by_drain(run: Run) -> None:
    handler = """
        def handler(event, context):
            return {"state": {"sum": event["state"].get("sum", 0) + len(event["Records"])}}
    """
    config = """
        [functions.clicks]
        code = "functions/clicks"
        handler = "app.handler"

        [sources.hook]
        type = "webhook"
        path = "/hooks/clicks"
        verify = "none"

        [mappings.sums]
        source = "hook"
        function = "clicks"
        shards = 1
        tumbling_window_s = 60
    """

    result = run(
        """
        def test(bridge_app, put, drain, invocations):
            put("hook", 1)
            put("sums", 2)
            bridge_app.advance(10)
            assert [i.values for i in invocations] == [[1, 2]]
            put("hook", 3)

            assert drain() == []

            assert [i.event["isFinalInvokeForWindow"] for i in invocations] == [False, False, True]
            assert invocations[-1].event["state"] == {"sum": 3}
            assert invocations[-1].at - bridge_app.now < 2
            assert round(invocations[-1].at - 1_767_225_600) == 60
        """,
        config=config,
        handler=handler,
    )

    result.assert_outcomes(passed=1)


def test_a_production_file_needs_neither_its_brokers_nor_their_secrets(run: Run) -> None:
    config = """
        [functions.clicks]
        code = "functions/clicks"
        handler = "app.handler"

        [connections.main]
        type = "kafka"
        bootstrap_servers = ["broker.internal:9092"]
        sasl = { mechanism = "PLAIN", username = "bridge", password = { env = "NOT_SET_ANYWHERE" } }
        tls = true

        [mappings.clicks]
        source = "kafka://main/web-clicks"
        function = "clicks"
        maximum_retry_attempts = 0
        on_failure = "kafka://main/web-clicks-failed"
    """

    result = run(
        """
        def test(put, drain, invocations, dead_letters):
            put("clicks", {"page": "bad"})
            assert drain() == []
            assert list(invocations[0].event["records"])[0].startswith("web-clicks-")
            assert [d.values for d in dead_letters] == [[{"page": "bad"}]]
        """,
        config=config,
    )

    result.assert_outcomes(passed=1)


def test_what_the_handler_sees_is_lambdas(run: Run) -> None:
    handler = """
        import asyncio, os, sys, time
        import helper

        async def later():
            await asyncio.sleep(0)
            return os.environ["STAGE"]

        def handler(event, context):
            assert asyncio.run(later()) == "test"
            assert os.path.exists("app.py")
            return {
                "name": context.function_name,
                "arn": context.invoked_function_arn,
                "left": 0 < context.get_remaining_time_in_millis() <= 3000,
                "id": context.aws_request_id,
                "variable": os.environ["AWS_LAMBDA_FUNCTION_NAME"],
                "helper": helper.NAME,
            }
    """

    result = run(
        """
        import os

        def test(bridge_app):
            where = os.getcwd()
            invoked = bridge_app.invoke("clicks", {"a": 1})
            assert invoked.result == {
                "name": "clicks",
                "arn": "arn:aws:lambda:us-east-1:000000000000:function:clicks",
                "left": True,
                "id": invoked.request_id,
                "variable": "clicks",
                "helper": "of clicks",
            }
            assert os.getcwd() == where and "STAGE" not in os.environ
        """,
        handler=handler,
        functions__clicks__helper="NAME = 'of clicks'",
    )

    result.assert_outcomes(passed=1)


def test_errors_are_named_as_lambda_names_them(run: Run) -> None:
    handler = """
        import sys

        def handler(event, context):
            if event["do"] == "exit":
                sys.exit(3)
            return {1, 2} if event["do"] == "set" else "x" * 7_000_000
    """

    result = run(
        """
        def test(bridge_app):
            def error(do):
                return bridge_app.invoke("clicks", {"do": do}).error

            assert error("exit")["errorType"] == "Runtime.ExitError"
            assert error("exit")["errorMessage"].endswith("exit status 3")
            assert error("set")["errorType"] == "Runtime.MarshalError"
            assert error("large")["errorType"] == "Function.ResponseSizeTooLarge"
        """,
        handler=handler,
    )
    broken = run(
        """
        def test(bridge_app):
            assert bridge_app.invoke("clicks", {}).error["errorType"] == "Runtime.ImportModuleError"
        """,
        handler="import no_such_module_at_all",
    )

    result.assert_outcomes(passed=1)
    broken.assert_outcomes(passed=1)


def test_every_test_begins_cold_and_two_functions_may_share_a_module_name(run: Run) -> None:
    config = """
        [functions.one]
        code = "functions/clicks"
        handler = "app.handler"
        [functions.two]
        code = "functions/two"
        handler = "app.handler"
    """
    counting = "calls = []\ndef handler(event, context):\n    calls.append(1)\n    return [%r, len(calls)]\n"

    result = run(
        """
        import sys
        import pytest

        @pytest.mark.parametrize("again", [1, 2])
        def test(bridge_app, again, monkeypatch):
            answers = [bridge_app.invoke(name, {}).result for name in ("one", "two", "one", "two")]
            assert answers == [["first", 1], ["second", 1], ["first", 2], ["second", 2]]
            monkeypatch.setattr(bridge_app.module("two"), "calls", [1] * 41)
            assert bridge_app.invoke("two", {}).result == ["second", 42]

        def test_nothing_is_left():
            assert "app" not in sys.modules
        """,
        config=config,
        handler=counting % "first",
        functions__two__app=counting % "second",
    )

    result.assert_outcomes(passed=3)


def test_a_module_that_the_test_imported_is_the_one_that_runs(run: Run) -> None:
    handler = "def save(event):\n    raise OSError\n\ndef handler(event, context):\n    return save(event)\n"

    result = run(
        """
        import app

        def test(bridge_app, monkeypatch):
            monkeypatch.setattr(app, "save", lambda event: "saved")
            assert bridge_app.invoke("clicks", {}).result == "saved"
        """,
        "-o",
        "pythonpath=functions/clicks",
        handler=handler,
    )

    result.assert_outcomes(passed=1)


def test_tests_that_are_coroutines_are_not_disturbed(run: Run) -> None:
    result = run(
        """
        import asyncio
        import pytest

        @pytest.mark.asyncio
        async def test(put, drain, invocations):
            loop = asyncio.get_running_loop()
            other = asyncio.create_task(asyncio.sleep(0.01, "mine"))
            put("clicks", {"page": "/"})
            assert drain() == [] and len(invocations) == 1
            assert await other == "mine"
            assert asyncio.get_running_loop() is loop
        """,
        "-p",
        "pytest_asyncio.plugin",
        "-o",
        "asyncio_default_fixture_loop_scope=function",
    )

    result.assert_outcomes(passed=1)


def test_a_failing_assertion_of_the_handlers_own_is_a_function_error_but_a_failed_test_ends_the_test(run: Run) -> None:
    handler = "import pytest\n\ndef handler(event, context):\n    pytest.fail('not this one')\n"

    result = run(
        """
        def test(put, drain):
            put("clicks", {"page": "/"})
            drain()
        """,
        handler=handler,
    )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*Failed: not this one"])


def test_the_configuration_is_chosen_by_setting_fixture_or_parameter(run: Run) -> None:
    test = """
        import pytest

        def test_the_setting(put, drain):
            put("clicks", {"page": "/"})
            assert drain() == []

        @pytest.mark.parametrize("bridge_config", ["other.toml"])
        def test_a_parameter(put, drain, invocations):
            put("other", {"page": "/"})
            assert drain() == [] and invocations[0].function == "clicks"

        class TestFixture:
            @pytest.fixture
            def bridge_config(self):
                return "other.toml"

            def test_a_fixture(self, put, drain):
                put("other", {"page": "/"})
                assert drain() == []
    """
    files = {
        "sub__bridge.toml": CONFIG.replace("functions/", "../functions/"),
        "other.toml": CONFIG.replace("[mappings.clicks]", "[mappings.other]"),
        "pytest.ini": "[pytest]\nbridge_config = sub/bridge.toml\n",
    }

    run(test, config="no toml at all", **files).assert_outcomes(passed=3)


def test_mistakes_are_one_clear_line(run: Run) -> None:
    mistaken = run("def test(bridge_app): ...", config=CONFIG.replace("handler =", "hanlder ="))
    unknown = run("def test(put): put('klicks', 1)")
    missing = run("def test(bridge_app): ...", "-o", "bridge_config=nowhere.toml")

    mistaken.assert_outcomes(errors=1)
    mistaken.stdout.fnmatch_lines(
        ["bridge_app: *bridge.toml:*", "*functions.clicks.hanlder: unknown key; did you mean handler?"]
    )
    unknown.assert_outcomes(failed=1)
    unknown.stdout.fnmatch_lines(["E*Failed: put: there is no mapping or source klicks; the configuration has: clicks"])
    missing.assert_outcomes(errors=1)
    missing.stdout.fnmatch_lines(["bridge_app: *nowhere.toml*"])
    for result in (mistaken, unknown, missing):
        result.stdout.no_fnmatch_line("*BridgeError*")
        result.stdout.no_fnmatch_line("*Traceback*")


def test_a_mapping_that_is_off_takes_records_and_drain_says_that_they_wait(run: Run) -> None:
    result = run(
        """
        def test(put, drain, invocations):
            assert drain() == []
            put("clicks", {"page": "/"})
            assert drain() == ["mapping clicks: 1 record waits: it is Disabled"]
            assert invocations == []
        """,
        config=CONFIG + "enabled = false\n",
    )

    result.assert_outcomes(passed=1)


def test_a_function_elsewhere_is_not_invoked_by_a_test(run: Run) -> None:
    config = """
        [connections.aws]
        type = "aws"
        region = "eu-central-1"
        access_key_id = "A"
        secret_access_key = { env = "NOT_HERE" }

        [functions.billing]
        arn = "arn:aws:lambda:eu-central-1:123456789012:function:billing"
        connection = "aws"

        [mappings.clicks]
        source = "local://clicks?as=kafka"
        function = "billing"
    """

    result = run(
        """
        def test(put, drain, invocations):
            put("clicks", {"page": "a"})

            waits = drain()

            assert invocations == []
            assert len(waits) == 1 and "1 record" in waits[0]
            assert "function billing is remote" in waits[0] and "--allow-remote" in waits[0]
        """,
        config=config,
    )

    result.assert_outcomes(passed=1)


def test_structlog_stays_as_its_user_set_it_and_our_lines_are_in_caplog(run: Run) -> None:
    result = run(
        """
        import structlog

        def test(put, drain, caplog):
            structlog.configure(processors=[structlog.processors.JSONRenderer()])
            before = structlog.get_config()
            put("clicks", {"page": "bad"})
            drain()
            assert structlog.get_config() == before
            structlog.reset_defaults()
            assert any("batch_dead_lettered" in r.getMessage() for r in caplog.records)
        """,
        config=CONFIG + "maximum_retry_attempts = 0\n",
    )

    result.assert_outcomes(passed=1)


def test_whoever_has_pytest_pays_nothing_for_it() -> None:
    code = (
        "import sys, bridge.plugin\n"
        "loaded = {name for name in sys.modules if name.startswith('bridge')}\n"
        "assert loaded == {'bridge', 'bridge.plugin'}, loaded\n"
        "assert 'pydantic' not in sys.modules and 'structlog' not in sys.modules\n"
        "assert bridge.plugin.BridgeApp and bridge.plugin.Invoked\n"
    )

    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_pytest_finds_it_by_the_packages_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["entry-points"]["pytest11"] == {"bridge": "bridge.plugin"}


SOURCES = (
    CONFIG
    + """
[sources.sensors]
type = "mqtt"
url = "mqtt://127.0.0.1"
topics = ["plant/+"]
function = "clicks"

[sources.nightly]
type = "schedule"
schedule = "rate(1 minute)"
function = "clicks"
"""
)


def test_messages_and_ticks_are_put_without_a_broker_or_waiting(run: Run) -> None:
    result = run(
        """
        def test(put, drain, invocations, bridge_app):
            assert put("sensors", {"t": 1}, topic="plant/3") is None
            put("nightly", at=1_772_359_200)
            put("nightly")

            assert drain() == []
            message, then, now = (invocation.event for invocation in invocations)
            assert message == {"t": 1}
            assert (then["detail-type"], then["time"]) == ("Scheduled Event", "2026-03-01T10:00:00Z")
            assert now["time"] == "2026-01-01T00:00:00Z"

        def test_no_schedule_ticks_by_itself(drain, bridge_app, invocations):
            bridge_app.advance(3600)

            assert (drain(), invocations) == ([], [])
        """,
        config=SOURCES,
        handler="def handler(event, context): ...",
    )

    result.assert_outcomes(passed=2)


def test_what_a_source_does_not_take_is_one_line(run: Run) -> None:
    result = run(
        """
        def test(put):
            put("sensors", {"t": 1}, topic="office/3")
        """,
        config=SOURCES,
    )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*sensors does not receive office/3; its topics are plant/+*"])


def test_layers_that_are_folders_are_imported_from_after_the_code(run: Run) -> None:
    result = run(
        """
        import sys

        def test(put, drain, invocations, dead_letters):
            put("clicks", {"page": "home"})
            drain()
            assert not dead_letters
            assert not [path for path in sys.path if "common/python" in path]
        """,
        config=CONFIG.replace("environment", 'layers = ["common"]\nenvironment'),
        handler="import of_the_layer\ndef handler(event, context):\n    assert of_the_layer.VALUE == 1\n",
        common__python__of_the_layer="VALUE = 1",
    )
    result.assert_outcomes(passed=1)

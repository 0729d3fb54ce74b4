"""boto3 makes functions: the whole life of one, beside declared ones, over kill -9, and with secrets sealed."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from tests.harness import wait_for, write_function
from tests.lambda_client import lambda_client
from tests.zips import zipped

pytestmark = [pytest.mark.integration]

CONFIG = """
account = "123456789012"
region = "eu-central-1"
api = {{ auth = "none" }}

[functions.hello]
code = "{code}"
handler = "app.handler"
"""
ROLE = "arn:aws:iam::123456789012:role/r"
ARN = "arn:aws:lambda:eu-central-1:123456789012:function:made"
CANARY = "canary-of-a-made-function"
CODE = """
import os, time
SEEN = []
def handler(event, context):
    SEEN.append(1)
    if "sleep" in event:
        time.sleep(event["sleep"])
    return {"code": "%s", "calls": len(SEEN), "secret": os.environ.get("SECRET"), "task": sorted(os.listdir(os.environ["LAMBDA_TASK_ROOT"])),
            "version": context.function_version, "arn": context.invoked_function_arn}
"""


def code(text):
    return zipped({"app.py": CODE % text})


@pytest.fixture
def bridge(daemon, tmp_path):
    code = write_function(tmp_path / "code", "def handler(event, context):\n    return 'declared'\n")
    return daemon(CONFIG.format(code=code))


def client(bridge, region="eu-central-1"):
    return lambda_client(bridge, "123456789012", region=region)


def create(api, name="made", **more):
    given = {"Runtime": "python3.12", "Handler": "app.handler", "Role": ROLE, "Code": {"ZipFile": code("one")}}
    made = api.create_function(FunctionName=name, **given | more)
    api.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.1})
    return made


def updated(api, name="made"):
    api.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.1})


def call(api, name="made", event=None):
    answer = api.invoke(FunctionName=name, Payload=json.dumps(event or {}))
    assert "FunctionError" not in answer, answer["Payload"].read()
    return json.loads(answer["Payload"].read()), answer["ExecutedVersion"]


def refusal(code, operation, **given):
    with pytest.raises(ClientError) as caught:
        operation(**given)
    assert caught.value.response["Error"]["Code"] == code, caught.value
    return caught.value.response["Error"]["Message"]


def test_from_create_to_delete(bridge):
    api = client(bridge)
    made = create(api, Environment={"Variables": {"SECRET": CANARY}}, Tags={"team": "a"}, Timeout=5)
    assert (made["State"], made["StateReasonCode"], made["Version"]) == ("Pending", "Creating", "$LATEST")
    result, version = call(api)
    assert (result["code"], result["secret"], result["task"], version) == ("one", CANARY, ["app.py"], "$LATEST")
    shown = api.get_function(FunctionName="made")
    assert shown["Configuration"]["Environment"] == {"Variables": {"SECRET": CANARY}}
    assert shown["Configuration"]["CodeSha256"] == made["CodeSha256"]
    assert shown["Tags"] == {"team": "a"}

    assert api.publish_version(FunctionName="made", Description="first")["Version"] == "1"
    assert api.publish_version(FunctionName="made")["Version"] == "1"
    changed = api.update_function_code(FunctionName="made", ZipFile=code("two"), Publish=True)
    assert (changed["Version"], changed["FunctionArn"]) == ("2", f"{ARN}:2")
    updated(api)
    assert call(api)[0]["code"] == "two"
    assert call(api, "made:1") == (call(api, "made:1")[0] | {"code": "one", "version": "1", "calls": 1}, "1")
    assert [each["Version"] for each in api.list_versions_by_function(FunctionName="made")["Versions"]] == [
        "$LATEST", "1", "2",
    ]  # fmt: skip

    alias = api.create_alias(FunctionName="made", Name="live", FunctionVersion="1")
    assert alias["AliasArn"] == f"{ARN}:live"
    result, version = call(api, "made:live")
    assert (result["arn"], result["version"], version) == (f"{ARN}:live", "1", "1")
    routing = {"AdditionalVersionWeights": {"2": 0.5}}
    api.update_alias(FunctionName="made", Name="live", RoutingConfig=routing)
    assert {call(api, "made:live")[1] for _ in range(40)} == {"1", "2"}
    assert api.get_alias(FunctionName="made", Name="live")["RoutingConfig"] == routing
    refusal("ResourceConflictException", api.delete_function, FunctionName="made", Qualifier="2")
    api.update_alias(
        FunctionName="made", Name="live", FunctionVersion="2", RoutingConfig={"AdditionalVersionWeights": {}}
    )
    assert {call(api, "made:live")[1] for _ in range(10)} == {"2"}

    api.update_function_configuration(FunctionName="made", Environment={"Variables": {}}, MemorySize=256)
    updated(api)
    assert call(api)[0]["secret"] is None
    assert call(api, "made:1")[0]["secret"] == CANARY
    api.put_function_concurrency(FunctionName="made", ReservedConcurrentExecutions=0)
    refusal("TooManyRequestsException", api.invoke, FunctionName="made", Payload=b"{}")
    api.delete_function_concurrency(FunctionName="made")

    names = [each["FunctionName"] for each in api.list_functions()["Functions"]]
    assert names == ["hello", "made"]
    api.delete_alias(FunctionName="made", Name="live")
    api.delete_function(FunctionName="made", Qualifier="1")
    refusal("ResourceNotFoundException", api.invoke, FunctionName="made:1", Payload=b"{}")
    api.delete_function(FunctionName="made")
    refusal("ResourceNotFoundException", api.get_function, FunctionName="made")
    refusal("ResourceNotFoundException", api.invoke, FunctionName="made", Payload=b"{}")
    create(api)
    assert api.publish_version(FunctionName="made")["Version"] == "3"  # numbers are never given again
    assert CANARY not in bridge.log()


def test_kill_and_restart_keep_it(bridge):
    api = client(bridge)
    create(api, Environment={"Variables": {"SECRET": CANARY}}, Publish=True)
    api.create_alias(FunctionName="made", Name="live", FunctionVersion="1")
    api.put_function_event_invoke_config(FunctionName="made", Qualifier="live", MaximumRetryAttempts=0)
    api.update_function_code(FunctionName="made", ZipFile=code("two"))
    bridge.kill9()  # the update may be in progress: it was answered, so it counts
    state = bridge.state
    kept = b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file() and "packages" not in path.parts)
    assert CANARY.encode() not in kept
    key = state.with_name(state.name + ".key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600

    api = client(bridge.restart())
    updated(api)
    assert call(api)[0]["code"] == "two"
    result, version = call(api, "made:live")
    assert (result["code"], result["secret"], version) == ("one", CANARY, "1")
    config = api.get_function_event_invoke_config(FunctionName="made", Qualifier="live")
    assert config["MaximumRetryAttempts"] == 0


def test_what_the_file_declares_is_read_only(bridge):
    api = client(bridge)
    for operation, given in (
        (api.update_function_code, {"ZipFile": code("x")}),
        (api.update_function_configuration, {"Timeout": 9}),
        (api.delete_function, {}),
    ):
        text = refusal("InvalidParameterValueException", operation, FunctionName="hello", **given)
        assert text.startswith("hello is declared in the daemon's file"), text
    text = refusal("ResourceConflictException", create, api=api, name="hello")
    assert text == "Function already exist: hello (declared in the daemon's file)"


def test_what_the_file_does_not_write_is_made_beside_it(bridge, tmp_path):
    api, edited = client(bridge), tmp_path / "code" / "app.py"
    api.publish_version(FunctionName="hello")
    edited.write_text(edited.read_text().replace("declared", "edited"))
    bridge.admin("POST", "/admin/v1/reload")
    assert api.publish_version(FunctionName="hello")["Version"] == "2"
    api.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    api.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=3)
    bridge.kill9()
    bridge.restart()
    api = client(bridge)
    assert (call(api, "hello:live"), call(api, "hello")) == (("declared", "1"), ("edited", "$LATEST"))
    assert api.get_function_concurrency(FunctionName="hello")["ReservedConcurrentExecutions"] == 3
    api.update_alias(FunctionName="hello", Name="live", FunctionVersion="2")
    assert call(api, "hello:live") == ("edited", "2")


def test_deleted_while_it_runs_it_ends_and_a_new_one_is_fresh(bridge):
    api = client(bridge)
    create(api)
    first = call(api)[0]
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(call, client(bridge), "made", {"sleep": 1.5})
        wait_for(
            lambda: b'bridge_running_invocations{function="made"} 1' in bridge.admin("GET", "/metrics").body,
            description="it runs",
        )
        api.delete_function(FunctionName="made")
        create(api)
        fresh = call(api)[0]
        assert running.result()[0]["code"] == "one"
    assert (first["calls"], fresh["calls"]) == (1, 1)  # the module was imported anew


def test_a_runtime_without_an_interpreter(bridge):
    api = client(bridge)
    create(api, Runtime="java21", Handler="index.handler")
    text = refusal("InvalidRuntimeException", api.invoke, FunctionName="made", Payload=b"{}")
    assert "java21" in text


def test_reload_keeps_what_was_made_and_a_name_in_both_is_the_files(bridge, tmp_path):
    api = client(bridge)
    create(api)
    bridge.file.write_text(
        bridge.file.read_text() + f"\n[functions.other]\ncode = '{tmp_path / 'code'}'\nhandler = 'app.handler'\n"
    )
    assert bridge.admin("POST", "/admin/v1/reload").status == 200
    assert call(api)[0]["code"] == "one"
    before = bridge.file.read_text()
    bridge.file.write_text(before + f"\n[functions.made]\ncode = '{tmp_path / 'code'}'\nhandler = 'app.handler'\n")
    answer = bridge.admin("POST", "/admin/v1/reload").json()
    assert any("made by Lambda's API is hidden" in line for line in answer["changes"])
    assert call(api)[0] == "declared"
    bridge.file.write_text(before)
    bridge.admin("POST", "/admin/v1/reload")
    assert call(api)[0]["code"] == "one"


READER = """
import os
def handler(event, context):
    found = {}
    for name in event["paths"]:
        try:
            with open(name, "rb") as file:
                found[name] = len(file.read()) > 0
        except OSError as error:
            found[name] = False
    return {"read": found, "module": __file__}
"""


def test_of_the_state_folder_it_sees_its_code_alone(bridge):
    api = client(bridge)
    create(api, Code={"ZipFile": zipped({"app.py": READER})}, Environment={"Variables": {"SECRET": CANARY}})
    hidden = [bridge.state / "token", bridge.state / "shared" / "catalog.db", bridge.state.with_name("state.key")]
    assert all(path.exists() for path in hidden)
    result = call(api, event={"paths": [str(path) for path in hidden]})[0]
    facts = {each["name"]: each["ok"] for each in bridge.admin("GET", "/admin/v1/doctor").json()["facts"]}
    if facts.get("mount namespace") or facts.get("landlock"):
        assert result["read"] == {str(path): False for path in hidden}
    assert result["module"].endswith("/app.py")

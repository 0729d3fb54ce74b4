"""Whole lives of functions by boto3 and awscli: every answer compared with what AWS was recorded to say; kills; weights."""

import http.client
import json
import os
import random
import re
import subprocess
import threading
from collections import Counter
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.brokers.emulators import HOW_TO_GET_IT, awscli
from tests.lambda_client import lambda_client
from tests.zips import zipped

pytestmark = [pytest.mark.integration]

ACCOUNT, REGION = "111111111111", "eu-central-1"
CONFIG = f'account = "{ACCOUNT}"\nregion = "{REGION}"\napi = {{ auth = "none" }}\n'
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"
ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function"
RECORDED = Path(__file__).parents[1] / "unit/events/golden/captured-from-aws"
ECHO = "def handler(event, context):\n    return [context.function_version, context.invoked_function_arn]\n"
HANDLERS = {
    "invoke-handler-error": 'def handler(event, context):\n    raise Exception("Handler fails")\n',
    "invoke-runtime-exit": "import os\ndef handler(event, context):\n    os._exit(0)\n",
    "invoke-response-too-large": 'def handler(event, context):\n    return "x" * 6_291_556\n',
    "invoke-timeout": "import time\ndef handler(event, context):\n    time.sleep(10)\n",
}
"""What was recorded of AWS, and a function that does it."""


def client(bridge):
    return lambda_client(bridge, ACCOUNT, region=REGION, max_pool_connections=4)


def create(api, name, text=ECHO, module="handler", **more):
    given = {"Runtime": "python3.12", "Handler": f"{module}.handler", "Role": ROLE, "Architectures": ["x86_64"]}
    code = {"ZipFile": zipped({f"{module}.py": text})}
    made = api.create_function(FunctionName=name, **{**given, "Code": code, **more})
    api.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.1})
    return made


def updated(api, name):
    api.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.1})


# --- recordings -----------------------------------------------------------------------------------------------------


def recorded(name):
    return json.loads((RECORDED / f"{name}.json").read_text())


def differences(wanted, found, where="answer"):
    """Return where an answer is not what was recorded; `<…>` in a recording stands for what differs each time."""
    if isinstance(wanted, dict):
        if not isinstance(found, dict) or wanted.keys() != found.keys():
            return [f"{where} has {sorted(found)}, recorded were {sorted(wanted)}"]
        return [each for name in wanted for each in differences(wanted[name], found[name], f"{where}.{name}")]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [
            each
            for number, item in enumerate(wanted)
            for each in differences(item, found[number], f"{where}[{number}]")
        ]
    if isinstance(wanted, str) and (wanted in ("date", "code-sha256") or re.fullmatch(r"<[^>]*>", wanted)):
        return [] if found else [f"{where} is empty"]
    if isinstance(wanted, str) and isinstance(found, str):
        pattern = "".join(".+" if part.startswith("<") else re.escape(part) for part in re.split(r"(<[^>]*>)", wanted))
        return [] if re.fullmatch(pattern, found, re.DOTALL) else [f"{where} is {found!r}, recorded was {wanted!r}"]
    return [] if wanted == found and type(wanted) is type(found) else [f"{where} is {found!r}, recorded was {wanted!r}"]


def shown(answer):
    """Return an answer as the recordings are written."""
    meta = {"HTTPHeaders": {}, "HTTPStatusCode": answer["ResponseMetadata"]["HTTPStatusCode"]}
    found = {**answer, "ResponseMetadata": meta}
    if "Payload" in found:
        found["Payload"] = json.loads(found["Payload"].read())
    return found


def test_what_differs_from_a_recording_is_seen():
    assert differences({"a": "x:<n>", "b": 1}, {"a": "x:5", "b": 1}) == []
    assert differences({"a": 1}, {"a": 1, "b": 2}) == ["answer has ['a', 'b'], recorded were ['a']"]
    assert differences({"a": "x:<n>"}, {"a": "y:5"}) == ["answer.a is 'y:5', recorded was 'x:<n>'"]
    assert differences({"a": 1}, {"a": True}) == ["answer.a is True, recorded was 1"]


def test_a_function_is_shown_as_aws_shows_it(daemon):
    api = client(daemon(CONFIG))
    create(api, "made")
    assert differences(recorded("function-configuration"), shown(api.get_function(FunctionName="made"))) == []
    api.put_function_concurrency(FunctionName="made", ReservedConcurrentExecutions=0)
    with pytest.raises(ClientError) as caught:
        api.invoke(FunctionName="made")
    answer = {name: value for name, value in caught.value.response.items() if name != "retryAfterSeconds"}
    assert differences(recorded("error-429-reserved-concurrency"), shown(answer)) == []


def test_function_errors_are_as_recorded(daemon):
    api = client(daemon(CONFIG))
    for name, text in HANDLERS.items():
        module = {"invoke-handler-error": "lambda_handler_error"}.get(name, "handler")
        create(api, name, text, module, Timeout=1 if name == "invoke-timeout" else 60, MemorySize=256)
        answer = shown(api.invoke(FunctionName=name, Payload=b"{}"))
        assert differences(recorded(name), answer) == []


# --- lives ----------------------------------------------------------------------------------------------------------


def test_a_life_by_the_aws_cli(daemon, tmp_path):
    program = awscli()
    if program is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"no awscli on this machine: {HOW_TO_GET_IT}")
    bridge = daemon(CONFIG)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
    environment = clean | {
        "AWS_ACCESS_KEY_ID": ACCOUNT, "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": REGION, "AWS_PAGER": "",
        "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip

    def run(operation, *arguments):
        done = subprocess.run(
            [program.parent / "python", program, "--endpoint-url", bridge.api, "--output", "json", "lambda", *operation.split(),
             "--function-name", "made", *arguments],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout else None

    package, out = tmp_path / "code.zip", tmp_path / "out.json"
    package.write_bytes(zipped({"handler.py": ECHO}))
    code = f"fileb://{package}"
    settings = ("--runtime", "python3.12", "--handler", "handler.handler", "--role", ROLE)
    made = run("create-function", *settings, "--zip-file", code, "--publish")
    assert (made["State"], made["FunctionArn"]) == ("Pending", f"{ARN}:made:1")
    run("wait function-active-v2")
    package.write_bytes(zipped({"handler.py": f"{ECHO}# two\n"}))
    assert run("update-function-code", "--zip-file", code, "--publish")["Version"] == "2"
    routing = {"AdditionalVersionWeights": {"2": 1.0}}
    points = ("--name", "live", "--function-version", "1", "--routing-config", json.dumps(routing))
    alias = run("create-alias", *points)
    assert differences({**ALIAS, "FunctionVersion": "1", "RoutingConfig": routing}, alias) == []
    answered = run("invoke", "--qualifier", "live", str(out))
    assert (answered["StatusCode"], answered["ExecutedVersion"]) == (200, "2")
    assert json.loads(out.read_text()) == ["2", f"{ARN}:made:live"]
    assert run("delete-alias", "--name", "live") is None
    run("delete-function")
    assert client(bridge).list_functions()["Functions"] == []


ALIAS = {"AliasArn": f"{ARN}:made:live", "Name": "live", "Description": "", "RevisionId": "<uuid>"}


def test_a_tenth_of_a_thousand_invocations(daemon):
    bridge = daemon(CONFIG)
    api = client(bridge)
    create(api, "made", Publish=True)
    api.update_function_configuration(FunctionName="made", Description="two", Timeout=9)
    updated(api, "made")
    api.publish_version(FunctionName="made")
    routing = {"AdditionalVersionWeights": {"2": 0.1}}
    api.create_alias(FunctionName="made", Name="live", FunctionVersion="1", RoutingConfig=routing)
    ran = Counter()
    connection = http.client.HTTPConnection(bridge.api.removeprefix("http://"), timeout=60)
    for _ in range(1_000):
        connection.request("POST", "/2015-03-31/functions/made:live/invocations", b"{}")
        answer = connection.getresponse()
        version = answer.headers["x-amz-executed-version"]
        assert json.loads(answer.read()) == [version, f"{ARN}:made:live"]
        ran[version] += 1
    connection.close()
    assert set(ran) == {"1", "2"}
    assert 45 <= ran["2"] <= 155  # once in ten million it is not, by chance


def test_what_was_answered_survives_kills_in_the_middle_of_changes(daemon):
    bridge, dice = daemon(CONFIG), random.Random(7)
    create(client(bridge), "made", Publish=True)
    client(bridge).create_alias(FunctionName="made", Name="live", FunctionVersion="1")
    answered, asked = {}, {}
    for _ in range(2):
        killer = threading.Timer(dice.uniform(0.1, 0.5), bridge.kill9)
        killer.start()
        try:
            change(client(bridge), answered, asked)
        except (BotoCoreError, ClientError) as error:
            assert not isinstance(error, ClientError), error
        killer.join()
        bridge.restart()
        found = held(client(bridge))
        assert {name: value for name, value in found.items() if value not in (answered[name], asked[name])} == {}
        answered = found


def change(api, answered, asked):
    """Count up in all that a function has, until the daemon is gone."""
    changes = {
        "tag": lambda number: api.tag_resource(Resource=f"{ARN}:made", Tags={"n": str(number)}),
        "alias": lambda number: api.update_alias(FunctionName="made", Name="live", Description=str(number)),
        "events": lambda number: api.put_function_event_invoke_config(
            FunctionName="made", MaximumEventAgeInSeconds=number
        ),
        "reserved": lambda number: api.put_function_concurrency(
            FunctionName="made", ReservedConcurrentExecutions=number
        ),
    }
    number = max([60, *answered.values()])
    for name in changes:
        answered.setdefault(name, -1)
        asked.setdefault(name, -1)
    while True:
        number += 1
        for name, make in changes.items():
            asked[name] = number
            make(number)
            answered[name] = number


def held(api):
    """Return the numbers that `change` counts, as they are shown; -1 where there is none."""
    shown = api.get_function(FunctionName="made")
    try:
        age = api.get_function_event_invoke_config(FunctionName="made")["MaximumEventAgeInSeconds"]
    except api.exceptions.ResourceNotFoundException:
        age = -1
    return {
        "tag": int(shown.get("Tags", {}).get("n", -1)),
        "alias": int(api.get_alias(FunctionName="made", Name="live")["Description"] or -1),
        "events": age,
        "reserved": shown.get("Concurrency", {}).get("ReservedConcurrentExecutions", -1),
    }

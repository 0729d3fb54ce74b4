"""A mapping and a route of the file name an alias that Lambda's API makes later, and follow it while records come."""

import json

import pytest

from tests.harness import request, wait_for
from tests.lambda_client import lambda_client
from tests.zips import zipped

pytestmark = pytest.mark.integration

CONFIG = """
api = { auth = "none" }

[sources.hook]
type = "webhook"
path = "/hook"
function = "made:live"
verify = "none"

[mappings.clicks]
source = "local://clicks?as=kinesis"
function = "made:live"
batch_size = 5
shards = 1
"""
CODE = """
import json, os, socket

host, port = os.environ["LEDGER"].split(":")
connection = socket.create_connection((host, int(port)))
answers = connection.makefile("rb")


def handler(event, context):
    keys = [record["kinesis"]["partitionKey"] for record in event.get("Records", [])]
    told = {"version": context.function_version, "code": "%s", "arn": context.invoked_function_arn, "keys": keys}
    connection.sendall(json.dumps(told).encode() + b"\\n")
    answers.readline()
"""


def test_what_waits_for_an_alias_is_handled_by_it_and_follows_it(daemon, told):
    bridge = daemon(CONFIG)
    api = lambda_client(bridge)
    one, two = (zipped({"app.py": CODE % text}) for text in ("one", "two"))

    def put(*numbers):
        records = json.dumps([{"id": number} for number in numbers])
        done = bridge.cli("put", "clicks", records, "--key", "id")
        assert done.returncode == 0, done.stderr

    def state():
        return json.loads(bridge.cli("mappings", "show", "clicks", "--json").stdout)

    put(1, 2, 3)
    wait_for(lambda: "FUNCTION_CONFIG_NOT_VALID" in str(state()), description="it says what it waits for")
    assert state()["state"] == "Enabled"
    api.create_function(
        FunctionName="made", Runtime="python3.12", Handler="app.handler", Role="arn:aws:iam::000000000000:role/r",
        Code={"ZipFile": one}, Environment={"Variables": {"LEDGER": told.address}}, Publish=True,
    )  # fmt: skip
    api.get_waiter("function_active_v2").wait(FunctionName="made", WaiterConfig={"Delay": 0.1})
    api.create_alias(FunctionName="made", Name="live", FunctionVersion="1")
    keys = lambda: [key for each in told() for key in each["keys"]]  # noqa: E731
    wait_for(lambda: keys() == ["1", "2", "3"], description="what waited is handled")

    api.update_function_code(FunctionName="made", ZipFile=two, Publish=True)
    put(4, 5, 6)
    api.update_alias(FunctionName="made", Name="live", FunctionVersion="2")
    put(7, 8, 9)
    wait_for(lambda: len(keys()) >= 9, description="all is handled")
    assert keys() == [str(number) for number in range(1, 10)]  # in order, each once
    assert {(each["version"], each["code"]) for each in told()} == {("1", "one"), ("2", "two")}
    assert [each["version"] for each in told()] == sorted(each["version"] for each in told())
    assert {each["arn"] for each in told()} == {"arn:aws:lambda:us-east-1:000000000000:function:made:live"}
    assert told()[-1]["version"] == "2"

    before = len(told())
    assert request("POST", bridge.public + "/hook", body=b"{}").status == 202
    wait_for(lambda: len(told()) > before, description="the route's event is handled")
    assert (told()[-1]["version"], told()[-1]["keys"]) == ("2", [])

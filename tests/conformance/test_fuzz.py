"""Requests made of botocore's own model of Lambda: no 500, no traceback, every answer one that botocore can read.

`BRIDGE_FUZZ` is how many lives of an api are tried in all, each of some requests. A seed that fails is told, with the
request whose answer was wrong: `live(folder, SEED)` is the same life again.
"""

import os
from dataclasses import replace
from random import Random

import pytest
import structlog

from bridge.api.app import AccessRules, ApiApp
from bridge.api.awslambda.mapped import MadeMappings, SourceLook
from tests.conformance.model import MODEL, Maker, faults
from tests.unit.api.harness import TOKEN
from tests.unit.api.making import zipped
from tests.unit.api.test_event_sources import Rows
from tests.unit.api.test_permissions import Api

LIVES = int(os.environ.get("BRIDGE_FUZZ", "480"))
SHARES = 4
"""Tests that they are spread over."""
STEPS = 25
PATH = "/2015-03-31/functions/made"
ELSEWHERE = ("Durable", "CapacityProvider", "ResourcePolicy", "ScalingConfig")
"""What operations are named after that are not offered."""
OPERATIONS = sorted(name for name in MODEL.operation_names if not any(word in name for word in ELSEWHERE))
WRITES = (
    "CreateFunction", "UpdateFunctionCode", "UpdateFunctionConfiguration", "PublishVersion", "CreateAlias",
    "UpdateAlias", "PutFunctionEventInvokeConfig", "PutFunctionConcurrency", "PublishLayerVersion", "AddPermission",
    "CreateEventSourceMapping", "CreateFunctionUrlConfig", "TagResource", "PutProvisionedConcurrencyConfig",
)  # fmt: skip
"""What the requests behind it have to get along with."""


class Whole(Api):
    """All of the api: functions, layers, policies, function URLs, event source mappings."""

    def __init__(self, folder):
        super().__init__(folder)
        mapped = MadeMappings(
            store=Rows(), clusters=dict, look=self._look, changed=self._look, is_busy=lambda _uuid: False,
            clock=self.world.clock,
        )  # fmt: skip
        services = replace(self.world.app._lambda._services, made_mappings=mapped)
        self.world.app = ApiApp(services, token=TOKEN, rules=AccessRules(asks=False))

    async def _look(self, *_mapping):
        return SourceLook()


async def live(folder, seed):
    """Ask one api, which has a function with two versions and an alias; return what was wrong with its answers."""
    random = Random(seed)
    maker, api = Maker(random), Whole(folder)
    await api.made.open()
    await api.create()
    await api.json("POST", f"{PATH}/versions", {}, 201)
    await api.json("PUT", f"{PATH}/code", {"ZipFile": zipped("x = 2"), "Publish": True})
    await api.settled()
    await api.json("POST", f"{PATH}/aliases", {"Name": "live", "FunctionVersion": "1"}, 201)
    found = []
    try:
        for _ in range(STEPS):
            call = maker.call(random.choice(random.choice((OPERATIONS, OPERATIONS, WRITES))))
            if random.random() < 0.8:
                for name in api.made.names():
                    await api.settled(name)
            answer = await api.world.ask(call.method, call.target, body=call.body, headers=call.headers, token=None)
            found += [(seed, call, each) for each in faults(call.operation, answer.status, answer.headers, answer.body)]
        tasks = list(api.world._tasks)
    finally:
        await api.world.close()
    return found + [(seed, repr(task.exception())) for task in tasks if not task.cancelled() and task.exception()]


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
async def test_no_request_brings_it_down(share, tmp_path):
    with structlog.testing.capture_logs() as lines:
        for seed in range(share * LIVES // SHARES, (share + 1) * LIVES // SHARES):
            assert await live(tmp_path / str(seed), seed) == []
            assert [line for line in lines if line.get("exc_info")] == [], seed


def test_what_is_wrong_with_an_answer_is_seen():
    named = {"x-amzn-requestid": "r", "x-amzn-errortype": "ResourceNotFoundException"}
    assert faults("GetFunction", 404, named, b'{"Message": "no", "Type": "User"}') == []
    assert faults("GetFunction", 409, named, b'{"Message": "no", "Type": "User"}')
    assert faults("GetFunction", 500, {**named, "x-amzn-errortype": "ServiceException"}, b'{"Message": "no"}')
    assert faults("GetFunction", 404, {**named, "x-amzn-errortype": "Surprise"}, b'{"Message": "no"}')
    assert faults("GetFunction", 404, named, b"")
    assert faults("GetAlias", 200, named, b'{"Name": "live"}') == []
    assert faults("GetAlias", 200, named, b'{"Name": 1, "Nam": "live"}') == [
        "GetAlias.Nam is no member",
        "GetAlias.Name is 1, no string",
    ]
    assert faults("GetAlias", 201, named, b"{}") == ["status 201, not 200"]
    assert faults("GetAlias", 200, named, b"<html>") == ["no JSON: b'<html>'"]
    assert faults("GetFunctionConfiguration", 200, named, b'{"State": "Running"}')

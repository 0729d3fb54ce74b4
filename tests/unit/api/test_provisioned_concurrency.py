"""Provisioned concurrency over the API: what is refused, in AWS's words; how far it is; where its configuration goes."""

from dataclasses import replace

import pytest
import pytest_asyncio

from bridge.core.function import Warmth
from bridge.registry.catalog import FunctionCatalog, FunctionSpec
from tests.harness import write_function
from tests.unit.api.making import ARN, FUNCTIONS, Made, MemoryFunctions

PATH = "/2019-09-30/functions/made/provisioned-concurrency"
RESERVED = "/2017-10-31/functions/made/concurrency"
INVALID = "InvalidParameterValueException"
CONFLICT = "ResourceConflictException"
UNPUBLISHED = "Provisioned Concurrency Configs cannot be applied to unpublished function versions."


class Warm:
    """What the workers of a version say."""

    def __init__(self):
        self.states = {}

    def __call__(self, version):
        return self.states.get(version.version, Warmth())


@pytest_asyncio.fixture
async def api(tmp_path):
    warm = Warm()
    made = Made(tmp_path, MemoryFunctions(), warmth=warm)
    made.warm = warm
    await made.made.open()
    await made.create(Publish=True)
    await made.json("PUT", f"{FUNCTIONS}/made/configuration", {"Timeout": 9})
    await made.settled()
    await made.json("POST", f"{FUNCTIONS}/made/versions", {}, 201)
    yield made
    await made.world.close()


def wanted(count):
    return {"ProvisionedConcurrentExecutions": count}


async def alias(api, name="live", version="1", **weights):
    routing = {"RoutingConfig": {"AdditionalVersionWeights": weights}} if weights else {}
    await api.json("POST", f"{FUNCTIONS}/made/aliases", {"Name": name, "FunctionVersion": version} | routing, 201)


async def test_in_progress_then_ready(api):
    put = await api.json("PUT", f"{PATH}?Qualifier=1", wanted(4), 202)
    assert put == {
        "RequestedProvisionedConcurrentExecutions": 4, "AllocatedProvisionedConcurrentExecutions": 0,
        "AvailableProvisionedConcurrentExecutions": 0, "Status": "IN_PROGRESS", "LastModified": put["LastModified"],
    }  # fmt: skip
    assert api.changed[-1] == "made"
    api.warm.states["1"] = Warmth(allocated=3, ready=2)
    shown = await api.json("GET", f"{PATH}?Qualifier=1")
    assert (shown["AllocatedProvisionedConcurrentExecutions"], shown["AvailableProvisionedConcurrentExecutions"]) == (
        3,
        2,
    )
    assert shown["Status"] == "IN_PROGRESS"
    api.warm.states["1"] = Warmth(allocated=2, ready=2, trouble="FUNCTION_ERROR_INIT_FAILURE")
    shown = await api.json("GET", f"{PATH}?Qualifier=1")
    assert (shown["Status"], shown["StatusReason"]) == ("FAILED", "FUNCTION_ERROR_INIT_FAILURE")
    api.warm.states["1"] = Warmth(allocated=4, ready=4)
    shown = await api.json("GET", f"{PATH}?Qualifier=1")
    assert (shown["Status"], "StatusReason" in shown) == ("READY", False)
    listed = await api.json("GET", f"{PATH}?List=ALL")
    assert listed == {"ProvisionedConcurrencyConfigs": [{"FunctionArn": f"{ARN}:1"} | shown]}
    await api.ask("DELETE", f"{PATH}?Qualifier=1", None, 204)
    text = await api.refused("GET", f"{PATH}?Qualifier=1", None, 404, "ProvisionedConcurrencyConfigNotFoundException")
    assert text == "No Provisioned Concurrency Config found for this function"
    await api.ask("DELETE", f"{PATH}?Qualifier=1", None, 204)


async def test_a_weighted_alias_is_ready_when_both_versions_are(api):
    await alias(api, **{"2": 0.25})
    await api.json("PUT", f"{PATH}?Qualifier=live", wanted(4), 202)
    assert api.catalog.get("made").warm() == {"1": 3, "2": 1}
    api.warm.states = {"1": Warmth(allocated=3, ready=3)}
    assert (await api.json("GET", f"{PATH}?Qualifier=live"))["Status"] == "IN_PROGRESS"
    api.warm.states["2"] = Warmth(allocated=1, ready=1)
    assert (await api.json("GET", f"{PATH}?Qualifier=live"))["Status"] == "READY"
    await api.json("PUT", f"{FUNCTIONS}/made/aliases/live", {"FunctionVersion": "2", "RoutingConfig": {}})
    assert api.catalog.get("made").warm() == {"2": 4}


@pytest.mark.parametrize(
    ("query", "count", "status", "code", "text"),
    [
        ("?Qualifier=$LATEST", 1, 400, INVALID, UNPUBLISHED),
        ("?Qualifier=7", 1, 404, "ResourceNotFoundException", f"Function not found: {ARN}:7"),
        ("?Qualifier=live", 1, 404, "ResourceNotFoundException", f"Cannot find alias arn: {ARN}:live"),
        ("", 1, 400, "ValidationException", "Value null at 'qualifier'"),
        ("?Qualifier=1", 0, 400, "ValidationException", "Member must have value greater than or equal to 1"),
        ("?Qualifier=1", None, 400, "ValidationException", "Member must not be null"),
        ("?Qualifier=1", 1001, 400, INVALID, "greater than account's unreserved concurrency [1000]."),
        ("?Qualifier=1", 901, 400, INVALID, "UnreservedConcurrentExecution below its minimum value of [100]."),
    ],
)
async def test_what_is_refused(api, query, count, status, code, text):
    assert text in await api.refused("PUT", PATH + query, wanted(count), status, code)
    assert api.catalog.get("made").provisioned == {}


async def test_reserved_is_its_limit_and_it_is_the_least_that_is_reserved(api):
    await api.json("PUT", RESERVED, {"ReservedConcurrentExecutions": 5})
    await api.json("PUT", f"{PATH}?Qualifier=1", wanted(2), 202)
    text = await api.refused("PUT", f"{PATH}?Qualifier=2", wanted(4), 400, INVALID)
    assert (
        text
        == "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"
    )
    text = await api.refused("PUT", RESERVED, {"ReservedConcurrentExecutions": 1}, 400, INVALID)
    assert text == (
        "ReservedConcurrentExecutions 1 should not be lower than function's total provisioned concurrency [2]."
    )
    assert api.catalog.provisioned() == {}  # within what is reserved
    await api.ask("DELETE", RESERVED, None, 204)
    assert api.catalog.provisioned() == {("made", "1"): 2}
    settings = await api.json("GET", "/2016-08-19/account-settings")
    assert settings["AccountLimit"]["ConcurrentExecutions"] == 1000
    assert settings["AccountLimit"]["UnreservedConcurrentExecutions"] == 998
    await api.create("other")
    body = {"ReservedConcurrentExecutions": 899}
    await api.refused("PUT", RESERVED.replace("made", "other"), body, 400, INVALID)
    await api.json("PUT", RESERVED.replace("made", "other"), {"ReservedConcurrentExecutions": 898})


async def test_a_version_is_provisioned_once(api):
    await alias(api)
    await alias(api, "latest", "$LATEST")
    await api.json("PUT", f"{PATH}?Qualifier=1", wanted(1), 202)
    text = await api.refused("PUT", f"{PATH}?Qualifier=live", wanted(1), 409, CONFLICT)
    assert text == "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
    assert await api.refused("PUT", f"{PATH}?Qualifier=latest", wanted(1), 400, INVALID) == UNPUBLISHED
    await api.ask("DELETE", f"{PATH}?Qualifier=1", None, 204)
    await api.json("PUT", f"{PATH}?Qualifier=live", wanted(1), 202)
    text = await api.refused("PUT", f"{PATH}?Qualifier=1", wanted(1), 409, CONFLICT)
    assert text == "Version is pointed by a Provisioned Concurrency alias"
    move = {"FunctionVersion": "$LATEST"}
    assert await api.refused("PUT", f"{FUNCTIONS}/made/aliases/live", move, 400, INVALID) == UNPUBLISHED
    await api.json("PUT", f"{PATH}?Qualifier=2", wanted(1), 202)
    await api.refused("PUT", f"{FUNCTIONS}/made/aliases/live", {"FunctionVersion": "2"}, 409, CONFLICT)


async def test_it_goes_with_its_version_or_alias_and_survives_a_start(api, tmp_path):
    await alias(api)
    await api.json("PUT", f"{PATH}?Qualifier=2", wanted(3), 202)
    await api.json("PUT", f"{PATH}?Qualifier=live", wanted(1), 202)
    again = Made(tmp_path, api.made._store)
    await again.made.open()
    assert again.catalog.get("made").warm() == {"1": 1, "2": 3}
    await api.ask("DELETE", f"{FUNCTIONS}/made?Qualifier=2", None, 204)
    assert api.catalog.get("made").warm() == {"1": 1}
    await api.ask("DELETE", f"{FUNCTIONS}/made/aliases/live", None, 204)
    assert api.catalog.get("made").provisioned == {}


async def test_a_function_of_the_file_has_it_for_its_versions(api, tmp_path):
    code = write_function(tmp_path / "code", "def handler(event, context): pass\n")
    spec = FunctionSpec(name="file", code=code, handler="app.handler")
    api.catalog.replace_all(FunctionCatalog.from_specs([spec]))
    await api.json("POST", f"{FUNCTIONS}/file/versions", {}, 201)
    await api.json("PUT", PATH.replace("made", "file") + "?Qualifier=1", wanted(2), 202)
    assert api.catalog.get("file").warm() == {"1": 2}
    written = replace(spec, reserved_concurrency=1)  # a reload that leaves less: the file counts
    api.catalog.replace_all(FunctionCatalog.from_specs([written]))
    assert api.catalog.provisioned() == {}

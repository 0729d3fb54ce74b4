"""What Lambda's API makes for functions that the file declares: beside the file's own values, which it never changes."""

import os
from dataclasses import replace

import pytest
import pytest_asyncio

from bridge.core.arn import parse_arn
from bridge.core.connection import AwsConnection
from bridge.core.function import EventInvokeConfig, RemoteFunction
from bridge.registry.catalog import FunctionCatalog, FunctionSpec
from tests.harness import write_function
from tests.unit.api.making import FUNCTIONS, Made, MemoryFunctions

ARN = "arn:aws:lambda:us-east-1:000000000000:function:file"
INVALID = "InvalidParameterValueException"
NOT_FOUND = "ResourceNotFoundException"
CANARY = "canary-of-the-file"
REMOTE = "arn:aws:lambda:eu-west-1:123456789012:function:far"


@pytest.fixture
def spec(tmp_path):
    code = write_function(tmp_path / "code", "def handler(event, context): pass\n")
    (code / "tool.sh").write_text("#!/bin/sh\n")
    (code / "tool.sh").chmod(0o755)
    return FunctionSpec(name="file", code=code, handler="app.handler", environment={"SECRET": CANARY})


async def started(folder, store, *specs):
    api = Made(folder, store)
    await api.made.open()
    api.catalog.replace_all(FunctionCatalog.from_specs(specs))
    return api


@pytest_asyncio.fixture
async def api(tmp_path, spec):
    made = await started(tmp_path, MemoryFunctions(), spec)
    yield made
    await made.world.close()


def edit(spec, text):
    (spec.code / "app.py").write_text(text)


async def test_a_version_is_a_snapshot_of_the_folder(api, spec):
    first = await api.json("POST", f"{FUNCTIONS}/file/versions", {"Description": "one"}, 201)
    assert (first["Version"], first["FunctionArn"], first["Description"]) == ("1", f"{ARN}:1", "one")
    assert CANARY not in str(first)
    edit(spec, "def handler(event, context): return 2\n")
    kept = api.catalog.get("file").version("1")
    assert (
        (api.packages.get(api.made.kept("file").versions["1"].package).code / "app.py").read_text().endswith("pass\n")
    )
    assert os.access(f"{kept.code}/tool.sh", os.X_OK)
    assert (kept.environment, kept.handler, kept.unrunnable) == ({"SECRET": CANARY}, "app.handler", "")
    assert api.catalog.get("file").latest.code == str(spec.code)
    second = await api.json("POST", f"{FUNCTIONS}/file/versions", {}, 201)
    assert (second["Version"], second["CodeSha256"] != first["CodeSha256"]) == ("2", True)


async def test_publish_without_a_change_is_the_same_version_again(api, spec):
    first = await api.json("POST", f"{FUNCTIONS}/file/versions", {}, 201)
    assert await api.json("POST", f"{FUNCTIONS}/file/versions", {"CodeSha256": first["CodeSha256"]}, 201) == first
    edit(spec, "def handler(event, context): return 2\n")
    text = await api.refused("POST", f"{FUNCTIONS}/file/versions", {"CodeSha256": first["CodeSha256"]}, 400, INVALID)
    assert "is different from current CodeSHA256 in $LATEST" in text
    edit(spec, "def handler(event, context): pass\n")
    assert (await api.json("POST", f"{FUNCTIONS}/file/versions", {}, 201))["Version"] == "1"
    api.catalog.replace_all(FunctionCatalog.from_specs([replace(spec, environment={"SECRET": "other"})]))
    assert (await api.json("POST", f"{FUNCTIONS}/file/versions", {}, 201))["Version"] == "2"
    listed = await api.json("GET", f"{FUNCTIONS}/file/versions")
    assert [each["Version"] for each in listed["Versions"]] == ["$LATEST", "1", "2"]
    await api.ask("DELETE", f"{FUNCTIONS}/file?Qualifier=2", None, 204)
    assert (await api.json("POST", f"{FUNCTIONS}/file/versions", {}, 201))["Version"] == "3"


async def test_a_folder_that_is_no_package_is_refused(api, spec):
    (spec.code / "odd\\name").write_text("")
    await api.refused("POST", f"{FUNCTIONS}/file/versions", {}, 400, INVALID)
    assert api.made.kept("file") is None
    assert not api.packages.keys()


async def test_aliases_follow_and_run(api, spec):
    await api.json("POST", f"{FUNCTIONS}/file/versions", {}, 201)
    edit(spec, "def handler(event, context): return 2\n")
    await api.json("POST", f"{FUNCTIONS}/file/versions", {}, 201)
    path = f"{FUNCTIONS}/file/aliases"
    body = {"Name": "live", "FunctionVersion": "1", "RoutingConfig": {"AdditionalVersionWeights": {"2": 0.25}}}
    alias = await api.json("POST", path, body, 201)
    assert (await api.json("GET", path))["Aliases"] == [alias]
    assert await api.json("GET", f"{path}/live") == alias
    function = api.catalog.get("file")
    assert [function.version("live", chance=chance).version for chance in (0.2, 0.3)] == ["2", "1"]
    await api.ask("POST", f"{FUNCTIONS}/file:live/invocations", {}, 200)
    shown = await api.json("GET", f"{FUNCTIONS}/file:live/configuration")
    assert (shown["Version"], shown["FunctionArn"]) == ("1", f"{ARN}:live")
    await api.refused("DELETE", f"{FUNCTIONS}/file?Qualifier=1", None, 409, "ResourceConflictException")
    await api.json("PUT", f"{path}/live", {"FunctionVersion": "2", "RoutingConfig": {}})
    await api.ask("DELETE", f"{FUNCTIONS}/file?Qualifier=1", None, 204)
    await api.ask("DELETE", f"{path}/live", None, 204)
    await api.refused("POST", f"{FUNCTIONS}/file:live/invocations", {}, 404, NOT_FOUND)


async def test_what_the_file_writes_is_read_only_and_the_rest_is_not(api, spec):
    concurrency, config = "/2017-10-31/functions/file/concurrency", "/2019-09-25/functions/file/event-invoke-config"
    await api.json("PUT", concurrency, {"ReservedConcurrentExecutions": 5})
    await api.json("PUT", config, {"MaximumRetryAttempts": 0})
    function = api.catalog.get("file")
    assert (function.reserved_concurrency, function.event_invoke.maximum_retry_attempts) == (5, 0)
    assert (await api.json("GET", config))["MaximumRetryAttempts"] == 0

    written = replace(
        spec,
        reserved_concurrency=7,
        event_invoke=EventInvokeConfig(maximum_retry_attempts=1, retry_delays_s=(0.5,)),
        writes_event_invoke=True,
    )
    api.catalog.replace_all(FunctionCatalog.from_specs([written]))
    function = api.catalog.get("file")
    assert (function.reserved_concurrency, function.event_invoke.maximum_retry_attempts) == (7, 1)
    for method, path, body, setting in (
        ("PUT", concurrency, {"ReservedConcurrentExecutions": 5}, "reserved_concurrency"),
        ("DELETE", concurrency, None, "reserved_concurrency"),
        ("PUT", config, {"MaximumRetryAttempts": 2}, "event_invoke"),
        ("DELETE", config, None, "event_invoke"),
    ):
        text = await api.refused(method, path, body, 400, INVALID)
        assert text.startswith(f"file is declared in the daemon's file, which writes its {setting}")
    assert (await api.json("GET", config))["MaximumRetryAttempts"] == 1
    await api.json("POST", f"{FUNCTIONS}/file/versions", {}, 201)
    await api.json("PUT", f"{config}?Qualifier=1", {"MaximumRetryAttempts": 2})
    own = api.world.invoker.resolve("file:1").function.event_invoke
    assert (own.maximum_retry_attempts, own.retry_delays_s) == (2, (0.5,))
    listed = (await api.json("GET", f"{config}/list"))["FunctionEventInvokeConfigs"]
    assert [each["MaximumRetryAttempts"] for each in listed] == [1, 2]

    api.catalog.replace_all(FunctionCatalog.from_specs([spec]))
    function = api.catalog.get("file")
    assert (function.reserved_concurrency, function.event_invoke.maximum_retry_attempts) == (5, 0)


async def test_a_version_without_a_configuration_of_its_own_has_the_files(api, spec):
    await api.json("POST", f"{FUNCTIONS}/file/versions", {}, 201)
    written = replace(spec, event_invoke=EventInvokeConfig(maximum_retry_attempts=1), writes_event_invoke=True)
    api.catalog.replace_all(FunctionCatalog.from_specs([written]))
    assert api.world.invoker.resolve("file:1").function.event_invoke.maximum_retry_attempts == 1


async def test_another_start_finds_it_and_leaving_the_file_hides_it(api, tmp_path, spec):
    await api.json("POST", f"{FUNCTIONS}/file/versions", {}, 201)
    await api.json("POST", f"{FUNCTIONS}/file/aliases", {"Name": "live", "FunctionVersion": "1"}, 201)
    await api.ask("POST", f"/2017-03-31/tags/{ARN}", {"Tags": {"a": "b"}}, 204)
    again = await started(tmp_path, api.made._store, spec)
    found = again.catalog.get("file").version("live")
    assert (found.version, found.environment) == ("1", {"SECRET": CANARY})
    assert (await again.json("GET", f"{FUNCTIONS}/file"))["Tags"] == {"a": "b"}

    again.catalog.replace_all(FunctionCatalog())
    await again.refused("GET", f"{FUNCTIONS}/file:live", None, 404, NOT_FOUND)
    await again.refused("POST", f"{FUNCTIONS}/file/versions", {}, 404, NOT_FOUND)
    again.catalog.replace_all(FunctionCatalog.from_specs([spec]))
    await again.json("GET", f"{FUNCTIONS}/file:live")

    again.catalog.replace_all(FunctionCatalog())
    await again.ask("DELETE", f"{FUNCTIONS}/file", None, 204)
    await again.refused("DELETE", f"{FUNCTIONS}/file", None, 404, NOT_FOUND)
    again.catalog.replace_all(FunctionCatalog.from_specs([spec]))
    await again.refused("GET", f"{FUNCTIONS}/file:live", None, 404, NOT_FOUND)
    assert (await again.json("POST", f"{FUNCTIONS}/file/versions", {}, 201))["Version"] == "2"


async def test_one_of_the_api_and_one_of_the_file_share_a_name_and_nothing_else(api, spec):
    api.catalog.replace_all(FunctionCatalog())
    await api.create("file", Tags={"of": "api"}, Publish=True)
    api.catalog.replace_all(FunctionCatalog.from_specs([spec]))
    assert (await api.json("GET", f"/2017-03-31/tags/{ARN}"))["Tags"] == {}
    assert (await api.json("POST", f"{FUNCTIONS}/file/versions", {}, 201))["Version"] == "2"
    api.catalog.replace_all(FunctionCatalog())
    assert (await api.json("GET", f"{FUNCTIONS}/file"))["Tags"] == {"of": "api"}
    listed = await api.json("GET", f"{FUNCTIONS}/file/versions")
    assert [each["Version"] for each in listed["Versions"]] == ["$LATEST", "1"]


async def test_a_remote_function_is_published_where_it_runs(api):
    remote = RemoteFunction(arn=parse_arn(REMOTE), connection=AwsConnection(name="aws", region="eu-west-1"))
    api.catalog.replace_all(FunctionCatalog.from_specs([FunctionSpec(name="far", remote=remote)]))
    for path in ("versions", "aliases"):
        text = await api.refused(
            "POST",
            f"{FUNCTIONS}/far/{path}",
            {"Name": "x", "FunctionVersion": "1"} if path == "aliases" else {},
            400,
            INVALID,
        )
        assert text.startswith(f"far runs elsewhere ({REMOTE})")
    await api.json("PUT", "/2017-10-31/functions/far/concurrency", {"ReservedConcurrentExecutions": 3})
    assert api.catalog.get("far").reserved_concurrency == 3


async def test_edited_code_is_taken_while_something_stands_beside_it(api, spec):
    await api.json("POST", f"{FUNCTIONS}/file/versions", {}, 201)
    before = api.catalog.get("file")
    edit(spec, "def handler(event, context): return 3\n")
    assert api.catalog.refresh("file")
    after = api.catalog.get("file")
    assert after.latest.revision != before.latest.revision
    assert after.versions == before.versions

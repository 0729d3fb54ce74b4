"""Functions made by Lambda's API over a store in memory: AWS's words for what is wrong, states, revisions, aliases."""

import asyncio
import random

import pytest

from tests.unit.api.making import ARN, FUNCTIONS, Made, MemoryFunctions, request, zipped


@pytest.fixture
async def api(tmp_path):
    made = Made(tmp_path, MemoryFunctions())
    await made.made.open()
    yield made
    await made.world.close()


async def test_pending_then_active_with_another_revision(api):
    release = api.hold()
    made = await api.json("POST", FUNCTIONS, request(), 201)
    assert (made["State"], made["StateReasonCode"]) == ("Pending", "Creating")
    assert made["FunctionArn"] == ARN
    text = await api.refused("POST", f"{FUNCTIONS}/made/invocations", {}, 409, "ResourceConflictException")
    assert text.endswith("in the following state: Pending")
    await release()
    shown = await api.json("GET", f"{FUNCTIONS}/made/configuration")
    assert (shown["State"], shown["LastUpdateStatus"]) == ("Active", "Successful")
    assert shown["RevisionId"] != made["RevisionId"]
    await api.ask("POST", f"{FUNCTIONS}/made/invocations", {}, 200)


@pytest.mark.parametrize(
    ("more", "status", "code", "text"),
    [
        ({"Role": None}, 400, "ValidationException", "Value null at 'role'"),
        ({"Role": "x"}, 400, "ValidationException", "Value 'x' at 'role' failed"),
        ({"Timeout": 0, "MemorySize": 1}, 400, "ValidationException", "2 validation errors detected: Value '0' at 'timeout'"),
        ({"Timeout": 901}, 400, "ValidationException", "Member must have value less than or equal to 900"),
        ({"Timeout": "3"}, 400, "SerializationException", "STRING_VALUE can not be converted to an Integer"),
        ({"MemorySize": 10_241}, 400, "ValidationException", "less than or equal to 10240"),
        ({"Handler": "a b"}, 400, "ValidationException", "'handler'"),
        ({"Handler": None}, 400, "InvalidParameterValueException", "mandatory parameters"),
        ({"Runtime": "Python3.13"}, 400, "InvalidParameterValueException", "Value Python3.13 at 'runtime'"),
        ({"Description": "x" * 257}, 400, "ValidationException", "'description'"),
        ({"FunctionName": "a b"}, 400, "ValidationException", "'functionName'"),
        ({"FunctionName": None}, 400, "ValidationException", "Value null at 'functionName'"),
        ({"Code": None}, 400, "ValidationException", "Value null at 'code'"),
        ({"Code": {}}, 400, "InvalidParameterValueException", "Please provide a source"),
        ({"Code": {"ZipFile": "AAAA"}}, 400, "InvalidParameterValueException", "Could not unzip uploaded file."),
        ({"Code": {"ZipFile": "?"}}, 400, "SerializationException", "base64"),
        ({"Code": {"S3Bucket": "bucket", "S3Key": "k"}}, 400, "InvalidParameterValueException", "S3Bucket is not offered"),
        ({"Code": {"S3Bucket": "b", "S3Key": "k"}}, 400, "ValidationException", "Value 'b' at 'code.s3Bucket' failed"),
        ({"Code": {"S3Bucket": "bucket"}}, 400, "InvalidParameterValueException", "Please provide both S3Bucket and S3Key."),
        ({"Code": {"S3Bucket": 1, "S3Key": "k"}}, 400, "SerializationException", "must be Strings"),
        (
            {"Code": {"S3Bucket": "bucket", "S3Key": "k" * 1025}}, 400, "ValidationException",
            "'code.s3Key' failed to satisfy constraint: Member must have length less than or equal to 1024",
        ),
        (
            {"Code": {"S3Bucket": "bucket", "S3Key": "k", "S3ObjectStorageMode": "REFERENCE"}}, 400,
            "InvalidParameterValueException", "REFERENCE is not offered",
        ),
        (
            {"Code": {"S3Bucket": "bucket", "S3Key": "k", "ZipFile": "UEs="}}, 400, "InvalidParameterValueException",
            "Please do not provide other FunctionCode parameters when providing a ZipFile.",
        ),
        ({"Code": {"ImageUri": "i"}}, 400, "InvalidParameterValueException", "ImageUri is not offered"),
        ({"PackageType": "Image"}, 400, "InvalidParameterValueException", "not offered"),
        ({"Environment": {"Variables": {"AWS_REGION": "x"}}}, 400, "InvalidParameterValueException", "request: AWS_REGION"),
        ({"Environment": {"Variables": {"A": "x"}}}, 400, "ValidationException", "Map keys must satisfy"),
        ({"Environment": {"Variables": {"AB": "x" * 5000}}}, 400, "InvalidParameterValueException", "exceeded the 4KB"),
        ({"EphemeralStorage": {"Size": 1}}, 400, "ValidationException", "'size'"),
        ({"Architectures": ["mips"]}, 400, "ValidationException", "'architectures'"),
        ({"Tags": {"aws:x": "y"}}, 400, "InvalidParameterValueException", "aws:x"),
        ({"DeadLetterConfig": {"TargetArn": "arn:aws:s3:::b"}}, 400, "InvalidParameterValueException", "dead-letter"),
    ],
)  # fmt: skip
async def test_what_create_refuses(api, more, status, code, text):
    assert text in await api.refused("POST", FUNCTIONS, request(**more), status, code)
    assert await api.json("GET", FUNCTIONS) == {
        "Functions": [(await api.json("GET", f"{FUNCTIONS}/hello"))["Configuration"]]
    }


async def test_names_that_are_taken(api):
    await api.create()
    assert (
        await api.refused("POST", FUNCTIONS, request(), 409, "ResourceConflictException")
        == "Function already exist: made"
    )
    text = await api.refused("POST", FUNCTIONS, request(FunctionName="hello"), 409, "ResourceConflictException")
    assert "declared in the daemon's file" in text


async def test_an_update_runs_once_it_is_through_and_no_second_one_meanwhile(api):
    await api.create(Environment={"Variables": {"AB": "1"}})
    before = api.catalog.get("made").latest
    release = api.hold()
    shown = await api.json("PUT", f"{FUNCTIONS}/made/configuration", {"Timeout": 9})
    assert (shown["LastUpdateStatus"], shown["Timeout"]) == ("InProgress", 9)
    assert api.catalog.get("made").latest is before
    body = {"ZipFile": zipped("two")}
    text = await api.refused("PUT", f"{FUNCTIONS}/made/code", body, 409, "ResourceConflictException")
    assert text.endswith(f"An update is in progress for resource: {ARN}")
    await release()
    latest = api.catalog.get("made").latest
    assert (latest.timeout_s, latest.environment, api.changed[-1]) == (9, {"AB": "1"}, "made")


async def test_check_28_the_revision_of_the_create_answer_is_stale_after_activation(api):
    made = await api.create()
    body = {"ZipFile": zipped("two"), "RevisionId": made["RevisionId"]}
    for method, path in (("PUT", "code"), ("PUT", "configuration"), ("POST", "versions")):
        text = await api.refused(method, f"{FUNCTIONS}/made/{path}", body, 412, "PreconditionFailedException")
        assert text == (
            "The Revision Id provided does not match the latest Revision Id. "
            "Call the GetFunction/GetAlias API to retrieve the latest Revision Id"
        )
    settled = await api.json("GET", f"{FUNCTIONS}/made/configuration")
    await api.json("PUT", f"{FUNCTIONS}/made/code", body | {"RevisionId": settled["RevisionId"]})


async def test_check_32_an_update_of_one_variable_takes_the_others_away(api):
    await api.create(Environment={"Variables": {"ONE": "1", "TWO": "2"}})
    path = f"{FUNCTIONS}/made/configuration"
    await api.json("PUT", path, {"Timeout": 9})
    await api.settled()
    assert api.catalog.get("made").latest.environment == {"ONE": "1", "TWO": "2"}
    changed = await api.json("PUT", path, {"Environment": {"Variables": {"TWO": "3"}}})
    assert changed["Environment"] == {"Variables": {"TWO": "3"}}
    await api.settled()
    assert (await api.json("GET", path))["Environment"] == {"Variables": {"TWO": "3"}}
    assert api.catalog.get("made").latest.environment == {"TWO": "3"}


async def test_dry_runs(api):
    await api.create()
    shown = await api.json("GET", f"{FUNCTIONS}/made/configuration")
    body = {"ZipFile": zipped("two")}
    dry = await api.json("PUT", f"{FUNCTIONS}/made/code", body | {"RevisionId": shown["RevisionId"], "DryRun": True})
    assert dry["CodeSha256"] != shown["CodeSha256"]
    assert await api.json("GET", f"{FUNCTIONS}/made/configuration") == shown


async def test_check_27_publishing_twice_without_a_change_is_one_version(api):
    await api.create()
    path = f"{FUNCTIONS}/made/versions"
    first = await api.json("POST", path, {"Description": "one"}, 201)
    assert await api.json("POST", path, {}, 201) == first
    assert await api.json("POST", path, {"Description": "two"}, 201) == first
    assert [each["Version"] for each in (await api.json("GET", path))["Versions"]] == ["$LATEST", "1"]


async def test_versions(api):
    await api.create()
    first = await api.json("POST", f"{FUNCTIONS}/made/versions", {"Description": "one"}, 201)
    assert (first["Version"], first["FunctionArn"], first["Description"]) == ("1", f"{ARN}:1", "one")
    body = {"CodeSha256": "other"}
    text = await api.refused("POST", f"{FUNCTIONS}/made/versions", body, 400, "InvalidParameterValueException")
    assert text.startswith("CodeSHA256 (other) is different from current CodeSHA256 in $LATEST")
    await api.ask("PUT", f"{FUNCTIONS}/made/configuration", {"Timeout": 9})
    await api.settled()
    assert (await api.json("POST", f"{FUNCTIONS}/made/versions", {}, 201))["Version"] == "2"
    await api.ask("DELETE", f"{FUNCTIONS}/made?Qualifier=2", None, 204)
    assert (await api.json("POST", f"{FUNCTIONS}/made/versions", {}, 201))["Version"] == "3"
    listed = await api.json("GET", f"{FUNCTIONS}/made/versions")
    assert [each["Version"] for each in listed["Versions"]] == ["$LATEST", "1", "3"]
    text = await api.refused(
        "DELETE", f"{FUNCTIONS}/made?Qualifier=$LATEST", None, 400, "InvalidParameterValueException"
    )
    assert text == "$LATEST version cannot be deleted without deleting the function."


async def test_aliases(api):
    await api.create(Publish=True)
    await api.ask("PUT", f"{FUNCTIONS}/made/configuration", {"Timeout": 9})
    await api.settled()
    await api.json("POST", f"{FUNCTIONS}/made/versions", {}, 201)
    path = f"{FUNCTIONS}/made/aliases"
    alias = await api.json("POST", path, {"Name": "live", "FunctionVersion": "1"}, 201)
    assert alias == {
        "AliasArn": f"{ARN}:live", "Name": "live", "FunctionVersion": "1", "Description": "", "RevisionId": alias["RevisionId"],
    }  # fmt: skip
    invalid = "InvalidParameterValueException"
    for body, status, code, text in (
        (
            {"Name": "live", "FunctionVersion": "1"},
            409,
            "ResourceConflictException",
            f"Alias already exists: {ARN}:live",
        ),
        ({"Name": "x", "FunctionVersion": "10"}, 404, "ResourceNotFoundException", f"Function not found: {ARN}:10"),
        ({"Name": "1", "FunctionVersion": "1"}, 400, "ValidationException", "'name'"),
        ({"Name": "x", "FunctionVersion": "live"}, 400, "ValidationException", "'functionVersion'"),
        (weighted("1", {"1": 0.1}), 400, invalid, "Function version 1 is already included in routing configuration."),
        (weighted("1", {"2": 0.1, "$LATEST": 0.1}), 400, invalid, "cannot be greater than 1"),
        (
            weighted("1", {"$LATEST": 0.1}),
            400,
            invalid,
            "$LATEST is not supported for an alias pointing to more than 1",
        ),
        (weighted("1", {"2": 1.1}), 400, "ValidationException", "between 0.0 and 1.0"),
        (weighted("1", {"live": 0.1}), 400, invalid, "never to an alias"),
    ):
        assert text in await api.refused("POST", path, body, status, code)
    await api.refused("DELETE", f"{FUNCTIONS}/made?Qualifier=1", None, 409, "ResourceConflictException")
    body = {"RoutingConfig": {"AdditionalVersionWeights": {"2": 0.25}}, "RevisionId": alias["RevisionId"]}
    await api.json("PUT", f"{path}/live", body)
    function = api.catalog.get("made")
    assert [function.version("live", chance=chance).version for chance in (0.0, 0.2499, 0.25, 1.0)] == [
        "2",
        "2",
        "1",
        "1",
    ]
    await api.refused("PUT", f"{path}/live", body, 412, "PreconditionFailedException")
    after = await api.json("PUT", f"{path}/live", {"FunctionVersion": "2", "RoutingConfig": {}})
    assert "RoutingConfig" not in after
    assert (await api.json("GET", f"{path}?FunctionVersion=2"))["Aliases"] == [after]
    await api.ask("DELETE", f"{path}/live", None, 204)
    text = await api.refused("GET", f"{path}/live", None, 404, "ResourceNotFoundException")
    assert text == f"Cannot find alias arn: {ARN}:live"


def weighted(version, weights):
    return {"Name": "x", "FunctionVersion": version, "RoutingConfig": {"AdditionalVersionWeights": weights}}


async def weighted_alias(api):
    """Make `x`: nine of ten to version 1, the tenth to version 2."""
    await api.create(Publish=True)
    await api.ask("PUT", f"{FUNCTIONS}/made/configuration", {"Timeout": 9})
    await api.settled()
    await api.json("POST", f"{FUNCTIONS}/made/versions", {}, 201)
    await api.json("POST", f"{FUNCTIONS}/made/aliases", weighted("1", {"2": 0.1}), 201)


async def test_check_26_a_tenth_of_an_aliases_invocations(api):
    await weighted_alias(api)
    api.world.invoker._draw = random.Random(7).random
    drawn = [api.world.invoker.resolve("made:x").version.version for _ in range(10_000)]
    assert 900 <= drawn.count("2") <= 1_100
    assert set(drawn) == {"1", "2"}


async def test_check_26_a_caller_sees_the_number_of_the_version_and_the_arn_of_the_alias(api):
    await weighted_alias(api)
    api.world.invoker._draw = random.Random(7).random
    api.world.runtime.handlers["made"] = lambda invocation: invocation.invoked_arn
    answers = [await api.ask("POST", f"{FUNCTIONS}/made:x/invocations", {}, 200) for _ in range(1_000)]
    versions = [answer.headers["x-amz-executed-version"] for answer in answers]
    assert set(versions) == {"1", "2"}
    assert 70 <= versions.count("2") <= 130
    assert {answer.json() for answer in answers} == {f"{ARN}:x"}


async def test_event_invoke_configurations_are_a_qualifiers_own(api):
    await api.create(Publish=True)
    path = "/2019-09-25/functions/made/event-invoke-config"
    text = await api.refused("GET", path, None, 404, "ResourceNotFoundException")
    assert text == f"The function {ARN}:$LATEST doesn't have an EventInvokeConfig"
    await api.refused("POST", path, {"MaximumRetryAttempts": 1}, 404, "ResourceNotFoundException")
    text = await api.refused("PUT", path, {}, 400, "InvalidParameterValueException")
    assert text == "You must specify at least one of error handling or destination setting."
    body = {"DestinationConfig": {"OnFailure": {"Destination": f"{ARN}:1"}}}
    text = await api.refused("PUT", path, body, 400, "InvalidParameterValueException")
    assert text == "You can't specify the function as a destination for itself."
    await api.refused("PUT", f"{path}?Qualifier=7", {"MaximumRetryAttempts": 1}, 404, "ResourceNotFoundException")
    config = await api.json("PUT", f"{path}?Qualifier=1", {"MaximumRetryAttempts": 0})
    assert config == {
        "FunctionArn": f"{ARN}:1", "MaximumRetryAttempts": 0, "LastModified": config["LastModified"],
        "DestinationConfig": {"OnSuccess": {}, "OnFailure": {}},
    }  # fmt: skip
    await api.json("POST", f"{path}?Qualifier=1", {"MaximumEventAgeInSeconds": 60})
    resolve = api.world.invoker.resolve
    assert resolve("made:1").function.event_invoke.maximum_retry_attempts == 0
    assert resolve("made:1").function.event_invoke.maximum_event_age_s == 60
    assert resolve("made").function.event_invoke.maximum_retry_attempts == 2
    await api.ask("DELETE", f"{path}?Qualifier=1", None, 204)
    assert resolve("made:1").function.event_invoke.maximum_retry_attempts == 2


async def test_concurrency_and_tags(api):
    await api.create(Tags={"a": "1"})
    path = "/2017-10-31/functions/made/concurrency"
    text = await api.refused("PUT", path, {"ReservedConcurrentExecutions": 901}, 400, "InvalidParameterValueException")
    assert text.endswith("UnreservedConcurrentExecution below its minimum value of [100].")
    await api.json("PUT", path, {"ReservedConcurrentExecutions": 900})
    assert api.catalog.get("made").reserved_concurrency == 900
    await api.ask("DELETE", path, None, 204)
    tags = f"/2017-03-31/tags/{ARN}"
    await api.ask("POST", tags, {"Tags": {"b": "2"}}, 204)
    await api.ask("DELETE", f"{tags}?tagKeys=a", None, 204)
    assert await api.json("GET", tags) == {"Tags": {"b": "2"}}


async def test_another_start_finds_what_was_made(api, tmp_path):
    await api.create(Publish=True, Environment={"Variables": {"AB": "1"}})
    await api.json("POST", f"{FUNCTIONS}/made/aliases", {"Name": "live", "FunctionVersion": "1"}, 201)
    again = Made(tmp_path, api.made._store)
    await again.made.open()
    shown = f"{FUNCTIONS}/made/configuration"
    assert await again.json("GET", shown) == await api.json("GET", shown)
    found = again.catalog.get("made").version("live")
    assert (found.version, found.environment) == ("1", {"AB": "1"})

    (tmp_path / "key").unlink()
    blind = Made(tmp_path, api.made._store)
    await blind.made.open()
    shown = await blind.json("GET", f"{FUNCTIONS}/made")
    assert shown["Configuration"]["Environment"]["Error"]["ErrorCode"] == "KMSNotFoundException"
    assert blind.catalog.get("made").latest.unrunnable.startswith("KMSNotFoundException: ")


async def test_packages_that_nothing_names_go_in_the_end(api, monkeypatch):
    await api.create()
    kept = api.made.get("made").latest.package
    await api.ask("PUT", f"{FUNCTIONS}/made/code", {"ZipFile": zipped("two")}, 200)
    await api.settled()
    now = api.world.clock.monotonic()
    await api.made._collect()
    assert kept in api.packages.keys()
    monkeypatch.setattr(api.world.clock, "monotonic", lambda: now + 2000)
    await api.made._collect()
    assert api.packages.keys() == {api.made.get("made").latest.package}


async def test_uploads_beyond_what_aws_takes(api, monkeypatch):
    monkeypatch.setattr("bridge.api.awslambda.uploads.UPLOAD_MAX_BYTES", 1000)
    text = await api.refused("POST", FUNCTIONS, request(Description="x" * 1000), 413, "RequestEntityTooLargeException")
    assert text == "Request must be smaller than 1000 bytes for the CreateFunction operation"
    assert await asyncio.to_thread(lambda: list(api.packages._folder.iterdir())) == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", f"{FUNCTIONS}/made/code", {"ZipFile": zipped("x = 1")}),
        ("PUT", f"{FUNCTIONS}/made/configuration", {"Timeout": 9}),
        ("POST", f"{FUNCTIONS}/made/versions", {}),
        ("DELETE", f"{FUNCTIONS}/made", None),
    ],
    ids=["code", "configuration", "version", "all"],
)
async def test_a_caller_of_another_account_changes_nothing(api, method, path, body):
    made = await api.create()
    signed = "AWS4-HMAC-SHA256 Credential=222222222222/20260101/us-east-1/lambda/aws4_request, SignedHeaders=host;x-amz-date, Signature=x"

    text = await api.refused(method, path, body, 404, "ResourceNotFoundException", headers={"authorization": signed})

    assert text == "Function not found: arn:aws:lambda:us-east-1:222222222222:function:made:$LATEST"
    assert (await api.json("GET", f"{FUNCTIONS}/made/configuration"))["CodeSha256"] == made["CodeSha256"]


async def test_a_page_costs_what_is_on_it(api, monkeypatch):
    for name in ("a", "b", "c"):
        await api.create(name, Environment={"Variables": {"NAME": name}})
    opened, variables = [], api.made.variables
    monkeypatch.setattr(api.made, "variables", lambda name, version: opened.append(name) or variables(name, version))

    first = await api.json("GET", f"{FUNCTIONS}?MaxItems=1")
    second = await api.json("GET", f"{FUNCTIONS}?MaxItems=1&Marker={first['NextMarker']}")

    shown = [each["Environment"]["Variables"]["NAME"] for each in (first["Functions"] + second["Functions"])]
    assert shown == opened == ["a", "b"]


async def test_logging_settings_have_levels_in_json_alone(api):
    made = await api.create(LoggingConfig={"LogFormat": "JSON", "SystemLogLevel": "WARN"})
    whole = {
        "LogFormat": "JSON", "LogGroup": "/aws/lambda/made", "ApplicationLogLevel": "INFO", "SystemLogLevel": "WARN",
    }  # fmt: skip
    assert made["LoggingConfig"] == whole

    changed = {"LoggingConfig": {"LogGroup": "/shop/all"}}
    shown = await api.json("PUT", f"{FUNCTIONS}/made/configuration", changed)
    assert shown["LoggingConfig"] == whole | {"LogGroup": "/shop/all"}
    await api.settled()
    version = api.catalog.get("made").latest
    assert (version.log_group, version.logging.is_json, version.logging.system_level) == ("/shop/all", True, "WARN")

    text = {"LoggingConfig": {"LogFormat": "Text", "LogGroup": "/aws/lambda/made"}}
    shown = await api.json("PUT", f"{FUNCTIONS}/made/configuration", text)
    assert shown["LoggingConfig"] == {"LogFormat": "Text", "LogGroup": "/aws/lambda/made"}


@pytest.mark.parametrize(
    ("memory", "constraint"),
    [(128, ""), (3008, ""), (130, "be a multiple of 64"), (3072, "have value less than or equal to 3008")],
)
async def test_memory_in_the_steps_that_it_once_had(tmp_path, memory, constraint):
    made = Made(tmp_path, MemoryFunctions(), has_memory_steps=lambda: True)
    await made.made.open()
    if not constraint:
        assert (await made.create(MemorySize=memory))["MemorySize"] == memory
    else:
        text = await made.refused("POST", FUNCTIONS, request(MemorySize=memory), 400, "ValidationException")
        assert f"Value '{memory}' at 'memorySize' failed to satisfy constraint: Member must {constraint}" in text
    await made.world.close()

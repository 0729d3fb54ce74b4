"""Layers made by Lambda's API: versions, filters and pages, policies and other accounts, and functions that have them."""

import json
from urllib.parse import quote

import pytest

from bridge.api.awslambda import control
from tests.unit.api.making import FUNCTIONS, Made, MemoryFunctions, request, zipped

LAYERS = "/2018-10-31/layers"
ARN = "arn:aws:lambda:us-east-1:000000000000:layer:tools"
OTHER = "111122223333"
TWICE = (
    "Two different versions of the same layer are not allowed to be referenced in the same function. "
    f"{ARN}:1 and {ARN}:2 are versions of the same layer."
)


@pytest.fixture
async def api(tmp_path):
    made = Made(tmp_path, MemoryFunctions())
    await made.made.open()
    yield made
    await made.world.close()


def caller(account, region="us-east-1"):
    """Return the headers of a caller who is believed: nobody is asked for a signature here."""
    scope = f"{account}/20260101/{region}/lambda/aws4_request"
    text = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host;x-amz-date, Signature=00"
    return {"headers": {"authorization": text}}


async def publish(api, name="tools", text="VALUE = 1", file="python/tools.py", **more):
    given = {"Content": {"ZipFile": zipped(text, file)}}
    who = more.pop("who", {})
    return await api.json("POST", f"{LAYERS}/{name}/versions", given | more, 201, **who)


async def allow(api, principal, version=1, sid="s", **more):
    body = {"StatementId": sid, "Action": "lambda:GetLayerVersion", "Principal": principal, **more}
    return await api.json("POST", f"{LAYERS}/tools/versions/{version}/policy", body, 201)


async def collect(api, monkeypatch):
    """Let what nothing names be thrown away."""
    await api.made._collect()
    now = api.world.clock.monotonic()
    monkeypatch.setattr(api.world.clock, "monotonic", lambda: now + control.PACKAGE_KEPT_S + 1)
    await api.made._collect()


async def test_publish_and_look(api):
    made = await publish(
        api, Description="d", LicenseInfo="MIT", CompatibleRuntimes=["python3.13"], CompatibleArchitectures=["arm64"]
    )
    assert (made["LayerArn"], made["LayerVersionArn"], made["Version"]) == (ARN, f"{ARN}:1", 1)
    assert (made["Description"], made["LicenseInfo"]) == ("d", "MIT")
    assert (made["CompatibleRuntimes"], made["CompatibleArchitectures"]) == (["python3.13"], ["arm64"])
    assert made["Content"]["CodeSize"] > 0
    assert len(made["Content"]["CodeSha256"]) == 44
    assert made["CreatedDate"].endswith("+0000")
    shown = await api.json("GET", f"{LAYERS}/tools/versions/1")
    by_arn = await api.json("GET", f"{LAYERS}?find=LayerVersion&Arn={ARN}:1")
    by_name = await api.json("GET", f"{LAYERS}/{quote(ARN, safe='')}/versions/1")
    for each in (made, shown, by_arn, by_name):
        assert "/content/" in each["Content"].pop("Location")
    assert made == shown == by_arn == by_name
    assert (await api.json("GET", "/2016-08-19/account-settings"))["AccountUsage"]["TotalCodeSize"] == (
        made["Content"]["CodeSize"]
    )


async def test_numbers_are_never_given_again(api, tmp_path):
    await publish(api)
    await publish(api, text="VALUE = 2")
    for _ in range(2):
        await api.ask("DELETE", f"{LAYERS}/tools/versions/2", None, 204)
    await api.ask("DELETE", f"{LAYERS}/tools/versions/1", None, 204)
    assert await api.json("GET", LAYERS) == {"Layers": []}
    again = Made(tmp_path, api.made._store, api.layers)
    await again.made.open()
    assert (await publish(again))["Version"] == 3


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "text"),
    [
        ("GET", "tools/versions/9", 404, "ResourceNotFoundException", "The resource you requested does not exist."),
        ("GET", "none/versions/1", 404, "ResourceNotFoundException", "The resource you requested does not exist."),
        ("GET", "tools/versions/0", 400, "InvalidParameterValueException", "Layer Version Cannot be less than 1"),
        ("DELETE", "tools/versions/-1", 400, "InvalidParameterValueException", "Layer Version Cannot be less than 1"),
        ("GET", "tools/versions/x", 400, "SerializationException", "STRING_VALUE can not be converted to a Long: x"),
        ("GET", "to%20ols/versions/1", 400, "ValidationException", "Value 'to ols' at 'layerName' failed"),
        ("GET", "tools/versions/9/policy", 404, "ResourceNotFoundException", f"Layer version {ARN}:9 does not exist."),
        (
            "GET", "tools/versions/1/policy", 404, "ResourceNotFoundException",
            "No policy is associated with the given resource.",
        ),
        ("DELETE", "tools/versions/1/policy/s", 404, "ResourceNotFoundException", "No policy is associated with the given"),
        ("GET", "tools/versions?MaxItems=51", 400, "ValidationException", "less than or equal to 50"),
        ("GET", "tools/versions?CompatibleRuntime=x", 400, "ValidationException", "Value 'x' at 'compatibleRuntime' failed"),
    ],
)  # fmt: skip
async def test_what_looking_refuses(api, method, path, status, code, text):
    await publish(api)
    assert text in await api.refused(method, f"{LAYERS}/{path}", None, status, code)


@pytest.mark.parametrize("arn", [ARN, "tools", "", "arn:aws:lambda:us-east-1:1:layer:tools:1"])
async def test_what_is_no_version_arn(api, arn):
    text = await api.refused("GET", f"{LAYERS}?find=LayerVersion&Arn={arn}", None, 400, "ValidationException")
    assert f"Value '{arn}' at 'arn' failed" in text


@pytest.mark.parametrize(
    ("more", "code", "text"),
    [
        ({"Content": None}, "ValidationException", "Value null at 'content'"),
        ({"Content": {}}, "InvalidParameterValueException", "Please provide a source"),
        ({"Content": {"ZipFile": "bm8gemlw"}}, "InvalidParameterValueException", "Could not unzip uploaded file."),
        ({"CompatibleRuntimes": ["cobol"]}, "ValidationException", "Value '[cobol]' at 'compatibleRuntimes' failed"),
        ({"CompatibleRuntimes": ["python3.13"] * 16}, "ValidationException", "length less than or equal to 15"),
        ({"CompatibleArchitectures": ["z80"]}, "ValidationException", "Value '[z80]' at 'compatibleArchitectures'"),
        ({"LicenseInfo": "x" * 513}, "ValidationException", "'licenseInfo' failed to satisfy constraint"),
        ({"Description": "x" * 257}, "ValidationException", "'description' failed"),
    ],
)
async def test_what_publish_refuses(api, more, code, text):
    body = {name: value for name, value in ({"Content": {"ZipFile": zipped()}} | more).items() if value is not None}
    assert text in await api.refused("POST", f"{LAYERS}/tools/versions", body, 400, code)
    assert await api.json("GET", LAYERS) == {"Layers": []}


async def test_lists_by_filter_and_page(api):
    await publish(api, CompatibleRuntimes=["python3.12"])
    await publish(api, CompatibleRuntimes=["python3.12", "python3.13"], CompatibleArchitectures=["arm64"])
    await publish(api)
    for name in ("aaa", "zzz"):
        await publish(api, name=name)

    listed = await api.json("GET", f"{LAYERS}/tools/versions")
    assert [each["Version"] for each in listed["LayerVersions"]] == [3, 2, 1]
    first = await api.json("GET", f"{LAYERS}/tools/versions?MaxItems=2")
    assert [each["Version"] for each in first["LayerVersions"]] == [3, 2]
    second = await api.json("GET", f"{LAYERS}/tools/versions?MaxItems=2&Marker={first['NextMarker']}")
    assert [each["Version"] for each in second["LayerVersions"]] == [1]
    assert "NextMarker" not in second

    async def found(query):
        layers = (await api.json("GET", f"{LAYERS}?{query}"))["Layers"]
        return {each["LayerName"]: each["LatestMatchingVersion"]["Version"] for each in layers}

    assert await found("") == {"aaa": 1, "tools": 3, "zzz": 1}
    assert await found("CompatibleRuntime=python3.12") == {"tools": 2}
    assert await found("CompatibleRuntime=python3.12&CompatibleArchitecture=x86_64") == {}
    page = await api.json("GET", f"{LAYERS}?MaxItems=1")
    assert page["Layers"][0]["LayerArn"] == ARN.replace("tools", "aaa")
    assert "NextMarker" in page


async def test_each_account_and_region_has_its_own(api):
    there = caller(OTHER, "eu-central-1")
    made = await publish(api, who=there)
    assert made["LayerVersionArn"] == f"arn:aws:lambda:eu-central-1:{OTHER}:layer:tools:1"
    assert (await api.json("GET", LAYERS))["Layers"] == []
    assert len((await api.json("GET", LAYERS, **there))["Layers"]) == 1
    assert (await publish(api))["Version"] == 1


async def test_sharing_with_another_account(api):
    await publish(api)
    other = caller(OTHER)
    path = f"{LAYERS}/{quote(ARN, safe='')}/versions"
    by_arn = f"{LAYERS}?find=LayerVersion&Arn={ARN}:1"

    async def refused(method="GET", target=by_arn):
        return await api.refused(method, target, None, 403, "AccessDeniedException", **other)

    text = await refused()
    assert text.endswith(
        f"is not authorized to perform: lambda:GetLayerVersion on resource: {ARN}:1 because no resource-based policy "
        "allows the lambda:GetLayerVersion action"
    )
    assert (await api.json("GET", path, **other))["LayerVersions"] == []

    made = await allow(api, OTHER)
    assert json.loads(made["Statement"]) == {
        "Sid": "s", "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{OTHER}:root"},
        "Action": "lambda:GetLayerVersion", "Resource": f"{ARN}:1",
    }  # fmt: skip
    assert (await api.json("GET", by_arn, **other))["Version"] == 1
    assert (await api.json("GET", f"{path}/1", **other))["Version"] == 1
    assert len((await api.json("GET", path, **other))["LayerVersions"]) == 1
    await refused("DELETE", f"{path}/1")
    await refused("GET", f"{path}/1/policy")

    await api.ask("DELETE", f"{LAYERS}/tools/versions/1/policy/s", None, 204)
    await refused()
    await allow(api, "*", OrganizationId="o-abcdefghij")
    await refused()
    await allow(api, "*", sid="all")
    assert (await api.json("GET", by_arn, **other))["Version"] == 1


async def test_policies_by_revision(api):
    await publish(api)
    path = f"{LAYERS}/tools/versions/1/policy"
    first = await allow(api, "*", sid="one", OrganizationId="o-abcdefghij")
    shown = await api.json("GET", path)
    assert shown["RevisionId"] == first["RevisionId"]
    document = json.loads(shown["Policy"])
    assert (document["Version"], document["Id"]) == ("2012-10-17", "default")
    assert document["Statement"] == [json.loads(first["Statement"])]
    assert document["Statement"][0]["Principal"] == "*"
    assert document["Statement"][0]["Condition"] == {"StringEquals": {"aws:PrincipalOrgID": "o-abcdefghij"}}

    body = {"StatementId": "one", "Action": "lambda:GetLayerVersion", "Principal": OTHER}
    text = await api.refused("POST", path, body, 409, "ResourceConflictException")
    assert text.startswith("The statement id (one) provided already exists.")
    stale = "Call the GetLayerPolicy API to retrieve the latest Revision Id"
    two = body | {"StatementId": "two"}
    assert stale in await api.refused("POST", f"{path}?RevisionId=x", two, 412, "PreconditionFailedException")
    assert stale in await api.refused("DELETE", f"{path}/one?RevisionId=x", None, 412, "PreconditionFailedException")
    text = await api.refused("DELETE", f"{path}/none", None, 404, "ResourceNotFoundException")
    assert text == "Statement none is not found in resource policy."
    second = await api.json("POST", f"{path}?RevisionId={first['RevisionId']}", two, 201)
    await api.ask("DELETE", f"{path}/one?RevisionId={second['RevisionId']}", None, 204)
    await api.ask("DELETE", f"{path}/two", None, 204)
    await api.refused("GET", path, None, 404, "ResourceNotFoundException")


@pytest.mark.parametrize(
    ("more", "member"),
    [
        ({"Action": "lambda:InvokeFunction"}, "action"),
        ({"Principal": "s3.amazonaws.com"}, "principal"),
        ({"StatementId": "a b"}, "statementId"),
        ({"StatementId": None}, "statementId"),
        ({"OrganizationId": "mine"}, "organizationId"),
    ],
)
async def test_what_a_statement_cannot_say(api, more, member):
    await publish(api)
    body = {"StatementId": "s", "Action": "lambda:GetLayerVersion", "Principal": OTHER} | more
    path = f"{LAYERS}/tools/versions/1/policy"
    assert f"at '{member}' failed" in await api.refused("POST", path, body, 400, "ValidationException")


# --- of functions -----------------------------------------------------------------------------------------------------
async def test_a_function_has_layers_in_order(api):
    first = await publish(api)
    await publish(api, name="more", text="VALUE = 'more'")
    arns = [f"{ARN.replace('tools', 'more')}:1", f"{ARN}:1"]
    made = await api.create(Layers=arns, Publish=True)
    assert [each["Arn"] for each in made["Layers"]] == arns
    assert made["Layers"][1]["CodeSize"] == first["Content"]["CodeSize"]
    latest = api.catalog.get("made").latest
    opt = api.packages._folder / latest.opt
    assert (opt / "python" / "tools.py").read_text() == "VALUE = 1"

    await api.json("PUT", f"{FUNCTIONS}/made/configuration", {"Layers": arns[:1]})
    await api.settled()
    assert api.catalog.get("made").latest.opt != latest.opt
    assert api.catalog.get("made").latest.revision != latest.revision
    assert api.catalog.get("made").version("1").opt == latest.opt
    await api.json("PUT", f"{FUNCTIONS}/made/configuration", {"Description": "layers stay"})
    await api.settled()
    assert len((await api.json("GET", f"{FUNCTIONS}/made/configuration"))["Layers"]) == 1
    assert (await api.json("POST", f"{FUNCTIONS}/made/versions", {}, 201))["Version"] == "2"
    cleared = await api.json("PUT", f"{FUNCTIONS}/made/configuration", {"Layers": []})
    await api.settled()
    assert "Layers" not in cleared
    assert api.catalog.get("made").latest.opt == ""


async def test_a_deleted_version_stays_in_functions(api, tmp_path, monkeypatch):
    await publish(api)
    made = await api.create(Layers=[f"{ARN}:1"])
    await api.ask("DELETE", f"{LAYERS}/tools/versions/1", None, 204)
    assert (await api.json("GET", f"{FUNCTIONS}/made/configuration"))["Layers"] == made["Layers"]
    text = await api.refused(
        "POST", FUNCTIONS, request(FunctionName="other", Layers=[f"{ARN}:1"]), 400, "InvalidParameterValueException"
    )
    assert text == f"Layer version {ARN}:1 does not exist."
    await collect(api, monkeypatch)
    again = Made(tmp_path, api.made._store, api.layers)
    await again.made.open()
    latest = again.catalog.get("made").latest
    assert latest.unrunnable == ""
    assert (tmp_path / latest.opt / "python" / "tools.py").read_text() == "VALUE = 1"


async def test_packages_of_layers_are_kept_and_merged_ones_go(api, monkeypatch):
    await publish(api)
    await publish(api, name="more", text="VALUE = 'more'")
    await api.create(Layers=[f"{ARN}:1", f"{ARN.replace('tools', 'more')}:1"])
    await api.made._collect()
    merged = {key for key in api.packages.keys() if key.startswith(".opt-")}
    assert len(merged) == 1
    await api.ask("DELETE", f"{FUNCTIONS}/made", None, 204)
    await collect(api, monkeypatch)
    assert api.packages.keys() == api.made.layers.packages()


@pytest.mark.parametrize(
    ("layers", "status", "code", "text"),
    [
        ([f"{ARN}:1"] * 6, 400, "InvalidParameterValueException", "Cannot reference more than 5 layers."),
        ([f"{ARN}:1", f"{ARN}:2"], 400, "InvalidParameterValueException", TWICE),
        ([f"{ARN}:1", f"{ARN}:1"], 400, "InvalidParameterValueException", "are versions of the same layer."),
        ([f"{ARN}:9"], 400, "InvalidParameterValueException", f"Layer version {ARN}:9 does not exist."),
        ([ARN], 400, "ValidationException", f"Value '[{ARN}]' at 'layers' failed"),
        ([1], 400, "SerializationException", "Layers holds Strings"),
        (
            [f"{ARN.replace('us-east-1', 'eu-central-1')}:1"], 400, "InvalidParameterValueException",
            "Layers are not in the same region as the function. Layers are expected to be in region us-east-1.",
        ),
        (
            [f"{ARN.replace('000000000000', OTHER)}:1"], 403, "AccessDeniedException",
            "because no resource-based policy allows the lambda:GetLayerVersion action",
        ),
    ],
)  # fmt: skip
async def test_layers_that_no_function_may_have(api, layers, status, code, text):
    await publish(api)
    await publish(api, text="VALUE = 2")
    assert text in await api.refused("POST", FUNCTIONS, request(Layers=layers), status, code)
    await api.create()
    assert text in await api.refused("PUT", f"{FUNCTIONS}/made/configuration", {"Layers": layers}, status, code)


async def test_a_layer_of_another_account(api):
    await publish(api, who=caller(OTHER))
    arn = f"{ARN.replace('000000000000', OTHER)}:1"
    await api.refused("POST", FUNCTIONS, request(Layers=[arn]), 403, "AccessDeniedException")
    body = {"StatementId": "s", "Action": "lambda:GetLayerVersion", "Principal": "arn:aws:iam::000000000000:root"}
    await api.json("POST", f"{LAYERS}/tools/versions/1/policy", body, 201, **caller(OTHER))
    made = await api.create(Layers=[arn])
    assert made["Layers"][0]["Arn"] == arn


async def test_code_and_layers_count_together(api, monkeypatch):
    monkeypatch.setattr(control, "UNZIPPED_MAX_BYTES", 100)
    await publish(api, text="#" * 60)
    await publish(api, name="more", text="#" * 70)
    layers = [f"{ARN}:1", f"{ARN.replace('tools', 'more')}:1"]
    invalid = "InvalidParameterValueException"
    text = await api.refused("POST", FUNCTIONS, request(Layers=layers), 400, invalid)
    assert text == "Layers consume more than the available size of 100 bytes"
    large = {"ZipFile": zipped("#" * 50)}
    text = await api.refused("POST", FUNCTIONS, request(Layers=layers[:1], Code=large), 400, invalid)
    assert text == (
        "Function code combined with layers exceeds the maximum allowed size of 100 bytes. The actual size is 110 bytes."
    )
    await api.create(Layers=layers[:1])
    assert "combined" in await api.refused("PUT", f"{FUNCTIONS}/made/code", large, 400, invalid)


async def test_a_lost_layer_is_told_at_the_invocation(api, tmp_path):
    await publish(api)
    await api.create(Layers=[f"{ARN}:1"])
    key = api.made.get("made").latest.layers[0]
    (tmp_path / "packages" / key / "package.zip").unlink()
    again = Made(tmp_path, api.made._store, api.layers)
    await again.made.open()
    told = again.catalog.get("made").latest.unrunnable
    assert told.startswith(f"InvalidZipFileException: a layer of {ARN}:1: the package")
    assert told.endswith("publish it anew and give it to the function (UpdateFunctionConfiguration)")
    await publish(again)
    assert again.catalog.get("made").latest.unrunnable == "", "the very same zip is there again"

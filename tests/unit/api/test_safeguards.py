"""Code-signing configurations and runtime management through Lambda's API: kept, shown, and gone with their function."""

import asyncio

import pytest

from bridge.registry.attachments import Attachments
from tests.documents import MemoryDocuments
from tests.unit.api.making import ARN, FUNCTIONS, Made, MemoryFunctions, request, zipped

CONFIGS = "/2020-04-22/code-signing-configs"
OF = "/2020-06-30/functions/{}/code-signing-config"
RUNTIME = "/2021-07-20/functions/{}/runtime-management-config"
PROFILE = "arn:aws:signer:us-east-1:000000000000:/signing-profiles/p/abc"
PUBLISHERS = {"SigningProfileVersionArns": [PROFILE]}
OF_SAFEGUARDS = ("code-signing-config", "code-signing", "runtime-management")
RUNTIME_ARN = "arn:aws:lambda:us-east-1::runtime:0123"


class Api(Made):
    def __init__(self, folder):
        self.kinds = {kind: MemoryDocuments() for kind in ("policy", "url", "recursion", *OF_SAFEGUARDS)}
        super().__init__(folder, MemoryFunctions(), kinds=self.kinds)
        self.safeguards = self.attached.safeguards

    async def reopened(self):
        again = Attachments(self.kinds.__getitem__)
        await again.open()
        return again


@pytest.fixture
async def api(tmp_path):
    made = Api(tmp_path)
    await made.made.open()
    await made.create(Publish=True)
    yield made
    await made.world.close()


async def test_a_configuration_is_made_changed_listed_and_deleted(api):
    made = (await api.json("POST", CONFIGS, {"AllowedPublishers": PUBLISHERS}, 201))["CodeSigningConfig"]
    arn = made["CodeSigningConfigArn"]

    assert made["CodeSigningPolicies"] == {"UntrustedArtifactOnDeployment": "Warn"}
    assert (await api.json("GET", f"{CONFIGS}/{arn}"))["CodeSigningConfig"] == made
    change = {"Description": "d", "CodeSigningPolicies": {"UntrustedArtifactOnDeployment": "Enforce"}}
    changed = (await api.json("PUT", f"{CONFIGS}/{arn}", change))["CodeSigningConfig"]
    assert changed | {"LastModified": ""} == made | change | {"LastModified": ""}
    assert (await api.json("GET", CONFIGS))["CodeSigningConfigs"] == [changed]
    await api.ask("DELETE", f"{CONFIGS}/{arn}", status=204)
    await api.refused("GET", f"{CONFIGS}/{arn}", None, 404, "ResourceNotFoundException")


@pytest.mark.parametrize("name", ["made", "hello"])
async def test_a_function_has_one_until_it_is_taken_away(api, name):
    arn = (await api.json("POST", CONFIGS, {"AllowedPublishers": PUBLISHERS}, 201))["CodeSigningConfig"][
        "CodeSigningConfigArn"
    ]
    path = OF.format(name)

    assert await api.json("GET", path) == {}
    put = await api.json("PUT", path, {"CodeSigningConfigArn": arn})
    assert put == await api.json("GET", path) == {"CodeSigningConfigArn": arn, "FunctionName": name}
    assert await api.json("GET", f"{CONFIGS}/{arn}/functions") == {"FunctionArns": [ARN.replace("made", name)]}
    assert "in use by" in await api.refused("DELETE", f"{CONFIGS}/{arn}", None, 409, "ResourceConflictException")
    await api.ask("DELETE", path, status=204)
    await api.ask("DELETE", f"{CONFIGS}/{arn}", status=204)


@pytest.mark.parametrize("policy", ["Warn", "Enforce"])
async def test_a_function_is_made_with_a_configuration_that_refuses_nothing(api, policy):
    asked = {"AllowedPublishers": PUBLISHERS, "CodeSigningPolicies": {"UntrustedArtifactOnDeployment": policy}}
    arn = (await api.json("POST", CONFIGS, asked, 201))["CodeSigningConfig"]["CodeSigningConfigArn"]

    await api.create("signed", CodeSigningConfigArn=arn)

    shown = await api.json("GET", OF.format("signed"))
    assert shown == {"CodeSigningConfigArn": arn, "FunctionName": "signed"}
    await api.json("PUT", f"{FUNCTIONS}/signed/code", {"ZipFile": zipped("x = 1")})


async def test_no_function_is_made_with_a_configuration_that_is_not_there(api):
    arn = (await api.json("POST", CONFIGS, {"AllowedPublishers": PUBLISHERS}, 201))["CodeSigningConfig"][
        "CodeSigningConfigArn"
    ]
    for other in (arn.replace("us-east-1", "eu-west-1"), arn.rpartition("-")[0] + "-" + "0" * 17):
        body = request(FunctionName="signed", CodeSigningConfigArn=other)
        await api.refused("POST", FUNCTIONS, body, 404, "CodeSigningConfigNotFoundException")
    await api.refused("POST", FUNCTIONS, request(CodeSigningConfigArn="x"), 400, "ValidationException")
    await api.refused("GET", f"{FUNCTIONS}/signed", None, 404, "ResourceNotFoundException")


async def test_functions_of_a_configuration_come_in_pages(api):
    arn = (await api.json("POST", CONFIGS, {"AllowedPublishers": PUBLISHERS}, 201))["CodeSigningConfig"][
        "CodeSigningConfigArn"
    ]
    for name in ("made", "hello"):
        await api.json("PUT", OF.format(name), {"CodeSigningConfigArn": arn})

    first = await api.json("GET", f"{CONFIGS}/{arn}/functions?MaxItems=1")
    assert first["FunctionArns"] == [ARN.replace("made", "hello")]
    last = await api.json("GET", f"{CONFIGS}/{arn}/functions?MaxItems=1&Marker={first['NextMarker']}")
    assert last == {"FunctionArns": [ARN]}


async def test_runtime_management_is_of_latest_and_of_versions(api):
    path = RUNTIME.format("made")

    assert await api.json("GET", path) == {"UpdateRuntimeOn": "Auto", "FunctionArn": f"{ARN}:$LATEST"}
    manual = {"UpdateRuntimeOn": "Manual", "RuntimeVersionArn": RUNTIME_ARN}
    assert await api.json("PUT", f"{path}?Qualifier=1", manual) == manual | {"FunctionArn": f"{ARN}:1"}
    assert await api.json("GET", f"{path}?Qualifier=1") == manual | {"FunctionArn": f"{ARN}:1"}
    assert (await api.json("GET", path))["UpdateRuntimeOn"] == "Auto"
    await api.refused("PUT", path, {"UpdateRuntimeOn": "Manual"}, 400, "InvalidParameterValueException")
    await api.refused("PUT", path, {"UpdateRuntimeOn": "Now"}, 400, "ValidationException")
    await api.refused("PUT", path, {}, 400, "ValidationException")
    await api.refused("GET", f"{path}?Qualifier=7", None, 404, "ResourceNotFoundException")
    await api.refused("GET", f"{path}?Qualifier=live", None, 400, "InvalidParameterValueException")


async def test_what_was_kept_is_there_after_a_restart_and_gone_with_its_function(api):
    arn = (await api.json("POST", CONFIGS, {"AllowedPublishers": PUBLISHERS}, 201))["CodeSigningConfig"][
        "CodeSigningConfigArn"
    ]
    await api.json("PUT", OF.format("made"), {"CodeSigningConfigArn": arn})
    await api.json("PUT", RUNTIME.format("made"), {"UpdateRuntimeOn": "FunctionUpdate"})

    again = (await api.reopened()).safeguards
    assert again.functions_of(arn) == [ARN]
    assert again.runtime_of.get((ARN, "$LATEST")) == {"UpdateRuntimeOn": "FunctionUpdate"}

    await api.ask("DELETE", f"{FUNCTIONS}/made", status=204)
    assert api.safeguards.functions_of(arn) == []
    assert api.safeguards.runtime_of.all() == {}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"AllowedPublishers": {}},
        {"AllowedPublishers": {"SigningProfileVersionArns": ["p"]}},
        {"AllowedPublishers": {"SigningProfileVersionArns": [PROFILE] * 21}},
        {"AllowedPublishers": PUBLISHERS, "CodeSigningPolicies": {"UntrustedArtifactOnDeployment": "Maybe"}},
        {"AllowedPublishers": PUBLISHERS, "Description": "d" * 257},
    ],
)
async def test_what_is_no_configuration_is_refused(api, body):
    await api.refused("POST", CONFIGS, body, 400, "ValidationException")
    assert (await api.json("GET", CONFIGS))["CodeSigningConfigs"] == []


async def test_a_function_cannot_have_what_is_not_there(api):
    arn = "arn:aws:lambda:us-east-1:000000000000:code-signing-config:csc-0123456789abcdefg"
    await api.refused(
        "PUT", OF.format("made"), {"CodeSigningConfigArn": arn}, 404, "CodeSigningConfigNotFoundException"
    )
    await api.refused("PUT", OF.format("made"), {"CodeSigningConfigArn": "x"}, 400, "ValidationException")
    await api.refused("PUT", OF.format("nobody"), {"CodeSigningConfigArn": arn}, 404, "ResourceNotFoundException")
    await api.refused("GET", OF.format("made:1"), None, 400, "InvalidParameterValueException")


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        (RUNTIME.format("made"), {"UpdateRuntimeOn": "FunctionUpdate"}, "runtime-management"),
        ("/2024-08-31/functions/made/recursion-config", {"RecursiveLoop": "Allow"}, "recursion"),
    ],
)
async def test_what_is_said_of_a_function_goes_with_it_though_the_disk_is_slow(api, path, body, kind):
    store, gate, begun = api.kinds[kind], asyncio.Event(), asyncio.Event()
    save = store.save

    async def slow(place, document):
        begun.set()
        await gate.wait()
        await save(place, document)

    store.save = slow
    said = asyncio.create_task(api.ask("PUT", path, body))
    await begun.wait()
    deleted = asyncio.create_task(api.ask("DELETE", f"{FUNCTIONS}/made"))
    for _ in range(100):
        await asyncio.sleep(0)
    gate.set()

    assert [answer.status for answer in await asyncio.gather(said, deleted)] == [200, 204]
    assert store.documents == {}

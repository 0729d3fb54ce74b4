"""Each account and region is a name space of its own: same names, other functions, versions, limits and lists."""

import asyncio
import json

import pytest
from structlog.testing import capture_logs

from bridge.core.spaces import Space
from tests.documents import MemoryDocuments
from tests.unit.api.making import FUNCTIONS, Made, MemoryFunctions, request, zipped

HOME = ("000000000000", "us-east-1")
ABROAD = ("000000000000", "eu-west-1")
OTHER = ("222222222222", "us-east-1")
FAR = ("222222222222", "eu-west-1")
SPACES = [HOME, ABROAD, OTHER, FAR]
NAMES = ["made", "made@eu-west-1.000000000000", "made@us-east-1.222222222222", "made@eu-west-1.222222222222"]


def arn(space, name="made"):
    account, region = space
    return f"arn:aws:lambda:{region}:{account}:function:{name}"


class Api(Made):
    """An api that is called from several name spaces: nobody is asked, and a key id of 12 digits is the account."""

    def __init__(self, folder, store=None, kinds=None, layers=None):
        self.kinds = kinds or {kind: MemoryDocuments() for kind in ("policy", "url", "recursion")}
        self.store = store or MemoryFunctions()
        super().__init__(folder, self.store, layers=layers, kinds=self.kinds)

    async def by(self, space, method, path, body=None, status=200):
        """Ask from a name space; the answer as JSON."""
        account, region = space
        signed = f"AWS4-HMAC-SHA256 Credential={account}/20260101/{region}/lambda/aws4_request, SignedHeaders=host;x-amz-date, Signature=x"
        answer = await self.ask(method, path, body, status, headers={"authorization": signed})
        return json.loads(answer.body) if answer.body else None

    async def said(self, space, method, path, body=None, status=400):
        """Be refused from a name space; the message."""
        found = await self.by(space, method, path, body, status)
        return found.get("message") or found["Message"]

    async def make(self, space, name="made", **more):
        made = await self.by(space, "POST", FUNCTIONS, request(FunctionName=name, **more), 201)
        assert made["FunctionArn"].startswith(arn(space, name))
        for known in self.catalog.functions():
            await self.settled(known.name)
        return made

    async def everywhere(self):
        """Make a function of the same name in each name space, with other code each."""
        for space in SPACES:
            text = f"# {'.'.join(space)}"
            await self.make(space, Code={"ZipFile": zipped(text)}, Environment={"Variables": {"WHO": text}})
        return self


@pytest.fixture
async def api(tmp_path):
    made = Api(tmp_path)
    await made.made.open()
    yield made
    await made.world.close()


async def test_the_same_name_is_another_function_in_each(api):
    await api.everywhere()

    shown = [await api.by(space, "GET", f"{FUNCTIONS}/made/configuration") for space in SPACES]

    assert [each["FunctionArn"] for each in shown] == [arn(space) for space in SPACES]
    assert {each["FunctionName"] for each in shown} == {"made"}
    assert [each["Environment"]["Variables"]["WHO"] for each in shown] == [f"# {'.'.join(space)}" for space in SPACES]
    assert {each["LoggingConfig"]["LogGroup"] for each in shown} == {"/aws/lambda/made"}
    assert len({each["CodeSha256"] for each in shown}) == 4
    lists = [(await api.by(space, "GET", FUNCTIONS))["Functions"] for space in SPACES]
    assert [[each["FunctionName"] for each in found] for found in lists] == [["hello", "made"], *[["made"]] * 3]
    assert await api.said(FAR, "POST", FUNCTIONS, request(), 409) == "Function already exist: made"


async def test_an_invocation_runs_the_callers(api):
    await api.everywhere()
    for name in NAMES:
        api.world.runtime.handlers[name] = lambda invocation, name=name: [name, invocation.invoked_arn]

    for space, name in zip(SPACES, NAMES, strict=True):
        assert await api.by(space, "POST", f"{FUNCTIONS}/made/invocations") == [name, arn(space)]
        assert await api.by(space, "POST", f"{FUNCTIONS}/{arn(space)}/invocations") == [name, arn(space)]

    versions = [api.catalog.get(name).latest for name in NAMES]
    assert [(version.plain_name, version.region) for version in versions] == [("made", region) for _, region in SPACES]
    await api.by(FAR, "DELETE", f"{FUNCTIONS}/made", status=204)
    text = await api.said(FAR, "POST", f"{FUNCTIONS}/made/invocations", status=404)
    assert text == f"Function not found: {arn(FAR)}:$LATEST"
    assert await api.by(ABROAD, "POST", f"{FUNCTIONS}/made/invocations") == [NAMES[1], arn(ABROAD)]
    assert api.changed[-1] == NAMES[3]


async def test_versions_aliases_and_settings_are_apart(api):
    await api.everywhere()
    for number in "12":
        await api.by(FAR, "PUT", f"{FUNCTIONS}/made/configuration", {"Description": number, "Timeout": int(number)})
        await api.settled(NAMES[3])
        assert (await api.by(FAR, "POST", f"{FUNCTIONS}/made/versions", {}, 201))["Version"] == number
    assert (await api.by(OTHER, "POST", f"{FUNCTIONS}/made/versions", {}, 201))["FunctionArn"] == f"{arn(OTHER)}:1"
    alias = await api.by(FAR, "POST", f"{FUNCTIONS}/made/aliases", {"Name": "live", "FunctionVersion": "2"}, 201)
    assert alias["AliasArn"] == f"{arn(FAR)}:live"
    await api.by(FAR, "PUT", "/2019-09-25/functions/made/event-invoke-config", {"MaximumRetryAttempts": 0})
    await api.by(FAR, "POST", f"/2017-03-31/tags/{arn(FAR)}", {"Tags": {"a": "b"}}, 204)
    await api.by(FAR, "PUT", "/2024-08-31/functions/made/recursion-config", {"RecursiveLoop": "Allow"})

    assert (await api.by(FAR, "GET", f"{FUNCTIONS}/made:live"))["Configuration"]["Timeout"] == 2
    assert await api.said(OTHER, "GET", f"{FUNCTIONS}/made/aliases/live", status=404) == (
        f"Cannot find alias arn: {arn(OTHER)}:live"
    )
    assert await api.said(HOME, "GET", f"{FUNCTIONS}/made:live", status=404) == f"Function not found: {arn(HOME)}:live"
    assert (await api.by(OTHER, "GET", f"/2017-03-31/tags/{arn(OTHER)}"))["Tags"] == {}
    assert (await api.by(FAR, "GET", f"/2017-03-31/tags/{arn(FAR)}"))["Tags"] == {"a": "b"}
    text = await api.said(ABROAD, "GET", "/2019-09-25/functions/made/event-invoke-config", status=404)
    assert text == f"The function {arn(ABROAD)}:$LATEST doesn't have an EventInvokeConfig"
    loops = [await api.by(space, "GET", "/2024-08-31/functions/made/recursion-config") for space in SPACES]
    assert [each["RecursiveLoop"] for each in loops] == ["Terminate"] * 3 + ["Allow"]


async def test_all_of_it_is_there_after_a_start(api, tmp_path):
    await api.everywhere()
    await api.by(FAR, "POST", f"{FUNCTIONS}/made/versions", {}, 201)
    await api.by(OTHER, "POST", f"{FUNCTIONS}/made/policy", statement("*"), 201)
    await api.by(ABROAD, "DELETE", f"{FUNCTIONS}/made", status=204)

    again = Api(tmp_path, api.store, api.kinds)
    await again.attached.open()
    await again.made.open()

    assert [function.name for function in again.catalog.functions()] == ["hello", "made", *sorted(NAMES[2:])]
    shown = await again.by(FAR, "GET", f"{FUNCTIONS}/made/configuration?Qualifier=1")
    assert (shown["FunctionArn"], shown["Environment"]["Variables"]["WHO"]) == (f"{arn(FAR)}:1", f"# {'.'.join(FAR)}")
    assert arn(OTHER) in (await again.by(OTHER, "GET", f"{FUNCTIONS}/made/policy"))["Policy"]
    await again.said(FAR, "GET", f"{FUNCTIONS}/made/policy", status=404)
    await again.world.close()


async def test_what_the_files_own_name_space_hides_is_said(api, tmp_path):
    await api.make(FAR)
    again = Api(tmp_path, api.store, api.kinds)
    again.made.home = Space(*FAR)
    with capture_logs() as logs:
        await again.made.open()
    assert [entry["function"] for entry in logs if entry["event"] == "function_hidden"] == [NAMES[3]]
    await again.world.close()


async def test_numbers_of_versions_are_not_given_again_in_their_own_name_space(api):
    await api.everywhere()
    for space in (FAR, HOME):
        await api.by(space, "POST", f"{FUNCTIONS}/made/versions", {}, 201)
        await api.by(space, "DELETE", f"{FUNCTIONS}/made", status=204)
    await api.make(FAR)
    assert (await api.by(FAR, "POST", f"{FUNCTIONS}/made/versions", {}, 201))["Version"] == "2"
    assert (await api.by(OTHER, "POST", f"{FUNCTIONS}/made/versions", {}, 201))["Version"] == "1"


def statement(principal, action="lambda:InvokeFunction"):
    return {"StatementId": "s", "Principal": principal, "Action": action}


async def test_another_region_is_not_reachable_and_another_account_by_a_statement_alone(api):
    await api.everywhere()
    by_arn = f"{FUNCTIONS}/{arn(FAR)}"
    text = await api.said(OTHER, "GET", by_arn, status=404)
    assert text == "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"
    assert (await api.said(ABROAD, "POST", f"{by_arn}/invocations", status=403)).endswith(
        f"is not authorized to perform: lambda:InvokeFunction on resource: {arn(FAR)} because no resource-based policy "
        "allows the lambda:InvokeFunction action"
    )
    await api.by(FAR, "POST", f"{FUNCTIONS}/made/policy", statement(ABROAD[0]), 201)
    api.world.runtime.handlers[NAMES[3]] = lambda invocation: invocation.invoked_arn
    assert await api.by(ABROAD, "POST", f"{by_arn}/invocations") == arn(FAR)
    await api.said(ABROAD, "GET", by_arn, status=403)
    await api.by(
        FAR, "POST", f"{FUNCTIONS}/made/policy", statement(ABROAD[0], "lambda:GetFunction") | {"StatementId": "g"}, 201
    )
    assert (await api.by(ABROAD, "GET", by_arn))["Configuration"]["FunctionArn"] == arn(FAR)
    assert (await api.by(ABROAD, "GET", f"{FUNCTIONS}/made"))["Configuration"]["FunctionArn"] == arn(ABROAD)


async def test_limits_are_each_ones_own(api):
    await api.everywhere()
    for space in (FAR, OTHER):
        await api.by(space, "PUT", "/2017-10-31/functions/made/concurrency", {"ReservedConcurrentExecutions": 900})
    await api.make(FAR, "second")
    text = await api.said(FAR, "PUT", "/2017-10-31/functions/second/concurrency", {"ReservedConcurrentExecutions": 1})
    assert "UnreservedConcurrentExecution below its minimum value of [100]" in text
    await api.by(ABROAD, "PUT", "/2017-10-31/functions/made/concurrency", {"ReservedConcurrentExecutions": 1})
    await api.by(FAR, "POST", f"{FUNCTIONS}/second/versions", {}, 201)
    path = "/2019-09-30/functions/second/provisioned-concurrency?Qualifier=1"
    assert "account's unreserved concurrency" in await api.said(
        FAR, "PUT", path, {"ProvisionedConcurrentExecutions": 101}
    )

    settings = [await api.by(space, "GET", "/2016-08-19/account-settings") for space in SPACES]

    assert [each["AccountLimit"]["UnreservedConcurrentExecutions"] for each in settings] == [1000, 999, 100, 100]
    assert [each["AccountUsage"]["FunctionCount"] for each in settings] == [2, 1, 1, 2]
    one = (await api.by(OTHER, "GET", f"{FUNCTIONS}/made/configuration"))["CodeSize"]
    second = (await api.by(FAR, "GET", f"{FUNCTIONS}/second/configuration"))["CodeSize"]
    assert settings[2]["AccountUsage"]["TotalCodeSize"] == one
    assert settings[3]["AccountUsage"]["TotalCodeSize"] == one + 2 * second
    assert api.catalog.reserved() == {"eu-west-1.222222222222": 900, "us-east-1.222222222222": 900, ABROAD_NAME: 1}


ABROAD_NAME = "eu-west-1.000000000000"


async def test_a_function_url_belongs_to_one(api):
    await api.everywhere()
    path = "/2021-10-31/functions/made/url"
    urls = [await api.by(space, "POST", path, {"AuthType": "NONE"}, 201) for space in (OTHER, FAR)]

    assert [each["FunctionArn"] for each in urls] == [arn(OTHER), arn(FAR)]
    assert [".lambda-url.us-east-1." in urls[0]["FunctionUrl"], ".lambda-url.eu-west-1." in urls[1]["FunctionUrl"]]
    kept = [api.attached.urls.get((arn(space), "")) for space in (OTHER, FAR)]
    assert [api.attached.urls.target(each) for each in kept] == NAMES[2:]
    await api.said(HOME, "GET", path, status=404)
    await api.by(OTHER, "DELETE", f"{FUNCTIONS}/made", status=204)
    assert (await api.by(FAR, "GET", path))["FunctionArn"] == arn(FAR)
    await api.make(OTHER)
    await api.said(OTHER, "GET", path, status=404)


async def test_a_functions_own_revision_guards_its_policy(api):
    await api.everywhere()
    revision = (await api.by(FAR, "GET", f"{FUNCTIONS}/made/configuration"))["RevisionId"]
    path = f"{FUNCTIONS}/made/policy"
    await api.said(OTHER, "POST", path, statement("*") | {"RevisionId": revision}, 412)
    await api.by(FAR, "POST", path, statement("*") | {"RevisionId": revision}, 201)


async def test_a_region_that_no_arn_has(api):
    for region in ("local", "..", "x" * 60):
        text = await api.said(("222222222222", region), "POST", FUNCTIONS, request())
        assert text == f"Functions are made in a region such as eu-central-1, not in '{region[:40]}'"
        assert await api.by(("222222222222", region), "GET", FUNCTIONS) == {"Functions": []}
    assert len(api.catalog.functions()) == 1


async def test_the_files_functions_are_in_its_own_alone(api):
    text = await api.said(OTHER, "PUT", f"{FUNCTIONS}/hello/configuration", {"Timeout": 9}, 404)
    assert text == f"Function not found: {arn(OTHER, 'hello')}:$LATEST"
    await api.make(OTHER, "hello")
    await api.by(OTHER, "PUT", f"{FUNCTIONS}/hello/configuration", {"Timeout": 9})
    assert "declared in the daemon's file" in await api.said(
        HOME, "PUT", f"{FUNCTIONS}/hello/configuration", {"Timeout": 9}
    )


async def test_a_reset_clears_all_of_them(api):
    await api.everywhere()
    async with api.made.changing():
        await api.made.clear()
    assert [each.name for each in api.catalog.functions()] == ["hello"]
    assert {name for name in NAMES if name in api.changed} == set(NAMES)
    assert (await asyncio.to_thread(api.packages.keys)) is not None
    await api.make(FAR)
    assert (await api.by(FAR, "POST", f"{FUNCTIONS}/made/versions", {}, 201))["Version"] == "1"

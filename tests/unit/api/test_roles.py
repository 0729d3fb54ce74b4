"""Execution roles at Lambda's API: what a role may not do is refused in AWS's words where it is configured."""

from types import SimpleNamespace

import pytest

from bridge.api.awslambda.errors import Refused
from bridge.api.awslambda.permits import admitted
from bridge.api.awslambda.roles import check_configuration
from bridge.core.errors import BridgeError
from bridge.registry.access import Caller
from bridge.registry.roles import Role, forbidden, managed_statement, unrestricted
from tests.unit.api.making import FUNCTIONS, Made, MemoryFunctions, request
from tests.unit.api.test_event_sources import KINESIS, QUEUE, STREAM, Mapped

NOBODY = "arn:aws:iam::000000000000:role/nobody"
BASIC = "arn:aws:iam::000000000000:role/basic"
SENDS = "arn:aws:iam::000000000000:role/sends"
TOPIC = "arn:aws:sns:us-east-1:000000000000:t"
NOT_SENDING = "The provided execution role does not have permissions to call SendMessage on SQS"
NOT_ASSUMED = "The role defined for the function cannot be assumed by Lambda."
EVENT_INVOKE = "/2019-09-25/functions/made/event-invoke-config"


class Roles:
    """Three roles that are known."""

    def __init__(self):
        basic = managed_statement("AWSLambdaBasicExecutionRole")
        sends = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": QUEUE}
        vpc = managed_statement("AWSLambdaVPCAccessExecutionRole")
        self.roles = {
            NOBODY: forbidden(NOBODY),
            BASIC: Role(arn=BASIC, statements=(basic,)),
            SENDS: Role(arn=SENDS, statements=(sends, vpc)),
        }
        self.trouble = ""

    def known(self, arn):
        return self.roles.get(arn) or unrestricted(arn)

    async def find(self, arn):
        if self.trouble:
            raise BridgeError(self.trouble)
        return self.known(arn)


@pytest.fixture
async def api(tmp_path):
    roles = Roles()
    made = Made(tmp_path, MemoryFunctions(), roles=roles)
    made.roles = roles
    await made.made.open()
    yield made
    await made.world.close()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"Role": NOBODY}, NOT_ASSUMED),
        ({"Role": BASIC, "DeadLetterConfig": {"TargetArn": QUEUE}}, NOT_SENDING),
        (
            {"Role": SENDS, "DeadLetterConfig": {"TargetArn": TOPIC}},
            "The provided execution role does not have permissions to call Publish on SNS",
        ),
        (
            {"Role": BASIC, "VpcConfig": {"SubnetIds": ["subnet-0a1b2c3d"], "SecurityGroupIds": ["sg-0a1b2c3d"]}},
            "The provided execution role does not have permissions to call CreateNetworkInterface on EC2",
        ),
    ],
)
async def test_a_configuration_that_the_role_does_not_carry(api, given, words):
    code = "InvalidParameterValueException"
    assert await api.refused("POST", FUNCTIONS, request(**given), 400, code) == words

    await api.create(Role=SENDS if given["Role"] == BASIC else BASIC)
    configuration = f"{FUNCTIONS}/made/configuration"
    assert await api.refused("PUT", configuration, given, 400, code) == words
    assert (await api.json("GET", configuration))["Role"] != given["Role"]


async def test_one_that_it_carries_is_taken_and_runs_under_it(api):
    network = {"SubnetIds": ["subnet-0a1b2c3d"], "SecurityGroupIds": ["sg-0a1b2c3d"]}
    made = await api.create(Role=SENDS, DeadLetterConfig={"TargetArn": QUEUE}, VpcConfig=network, Publish=True)

    assert made["Role"] == SENDS
    assert api.catalog.get("made").version("1").role == SENDS
    await api.json("PUT", f"{FUNCTIONS}/made/configuration", {"Role": BASIC, "DeadLetterConfig": {}, "VpcConfig": {}})
    await api.settled()
    assert api.catalog.get("made").latest.role == BASIC
    assert api.catalog.get("made").version("1").role == SENDS


async def test_roles_that_are_not_known_carry_everything(api):
    await api.create(DeadLetterConfig={"TargetArn": QUEUE})


async def test_iam_that_does_not_answer_is_no_refusal_of_the_role(api):
    api.roles.trouble = "IAM did not answer"

    assert await api.refused("POST", FUNCTIONS, request(), 503, "ServiceException") == "IAM did not answer"


async def test_destinations_ask_the_role_of_their_qualifier(api):
    await api.create(Role=BASIC)
    body = {"DestinationConfig": {"OnFailure": {"Destination": QUEUE}}}
    assert await api.refused("PUT", EVENT_INVOKE, body, 400, "InvalidParameterValueException") == NOT_SENDING

    await api.json("PUT", f"{FUNCTIONS}/made/configuration", {"Role": SENDS})
    await api.settled()
    await api.json("PUT", EVENT_INVOKE, body)


async def test_a_function_of_the_file_without_a_role_is_asked_nothing(api):
    path = EVENT_INVOKE.replace("made", "hello")

    await api.json("PUT", path, {"DestinationConfig": {"OnFailure": {"Destination": QUEUE}}})


async def test_a_version_of_such_a_function_has_no_role_either(api, tmp_path):
    (tmp_path / "app.py").write_text("def handler(event, context): pass\n")
    hello = api.catalog.get("hello")
    from dataclasses import replace

    from bridge.registry.catalog import FunctionCatalog

    there = replace(hello, latest=replace(hello.latest, code=str(tmp_path), role=""))
    api.catalog.replace_all(FunctionCatalog([there]))
    await api.json("POST", f"{FUNCTIONS}/hello/versions", {}, 201)

    assert api.catalog.get("hello").version("1").role == ""


# --- mappings ---


@pytest.fixture
async def mapped():
    made = Mapped()
    made.said = ""
    made.asked = []

    async def refused(mapping):
        made.asked.append(mapping)
        return made.said

    made.made._refused = refused
    await made.made.open()
    yield made
    await made.world.close()


async def test_a_mapping_whose_role_may_not_read_is_refused_before_anything_is_looked_at(mapped):
    mapped.said = f"Cannot access stream {STREAM}."

    assert await mapped.refused("POST", "", {"FunctionName": "hello", **KINESIS}) == mapped.said
    assert mapped.looked == []
    assert (await mapped.json("GET"))["EventSourceMappings"] == []


async def test_so_is_a_change_to_what_it_may_not(mapped):
    made = await mapped.create(**KINESIS)
    mapped.said = NOT_SENDING
    destination = {"OnFailure": {"Destination": QUEUE}}

    assert await mapped.refused("PUT", f"/{made['UUID']}", {"DestinationConfig": destination}) == NOT_SENDING
    assert mapped.asked[-1].on_failure == QUEUE
    assert (await mapped.json("GET", f"/{made['UUID']}"))["DestinationConfig"] == {"OnFailure": {}}


# --- who gives a role ---


def caller(account="000000000000", *statements, is_function=False):
    role = Role(arn=SENDS, statements=statements) if is_function else None
    return Caller(account=account, region="us-east-1", role=role, session="f")


async def given(role_arn, by, **more):
    await check_configuration(Roles(), {"Role": role_arn}, by, **more)


async def test_a_role_that_it_has_already_is_not_given_again():
    with pytest.raises(Refused, match="iam:PassRole"):
        await given(BASIC, caller(is_function=True))
    await given(BASIC, caller(is_function=True), is_passed=False)


async def test_a_known_role_is_given_within_its_account_alone():
    await given(BASIC, caller())
    await given("arn:aws:iam::000000000000:role/unknown", caller("111122223333"))
    with pytest.raises(Refused, match="Cross-account pass role is not allowed"):
        await given(BASIC, caller("111122223333"))


async def test_whoever_may_change_functions_of_another_account_gives_them_no_role():
    """As the permit leaves the caller whom a policy of the function lets in."""
    arn = "arn:aws:lambda:us-east-1:000000000000:function:made"
    asked = SimpleNamespace(params={"fn": arn}, query=list)
    policies = SimpleNamespace(refusing=lambda *_: "")
    foreign = admitted(asked, caller("111122223333"), "lambda:UpdateFunctionConfiguration", policies)
    assert (foreign.account, foreign.signer) == ("000000000000", "111122223333")
    assert foreign.arn.startswith("arn:aws:iam::111122223333:user/")
    for arn in (BASIC, "arn:aws:iam::000000000000:role/unknown"):
        with pytest.raises(Refused, match="Cross-account pass role is not allowed"):
            await given(arn, foreign)
    await given(BASIC, foreign, is_passed=False)


async def test_a_function_that_makes_functions_gives_them_the_roles_that_its_own_lets_it_pass():
    passes = {"Effect": "Allow", "Action": "iam:PassRole", "Resource": BASIC}
    creates = {"Effect": "Allow", "Action": "lambda:*", "Resource": "*"}

    await given(BASIC, caller("000000000000", creates, passes, is_function=True))
    for arn in (SENDS, "arn:aws:iam::000000000000:role/unknown"):
        with pytest.raises(Refused, match=f"assumed-role/sends/f is not authorized to perform: iam:PassRole on.*{arn}"):
            await given(arn, caller("000000000000", creates, passes, is_function=True))


LAYER = "arn:aws:lambda:us-east-1:000000000000:layer:l:1"
MAPPING = "arn:aws:lambda:us-east-1:000000000000:event-source-mapping:0a1b2c3d-0000-0000-0000-000000000000"
SECRET = "arn:aws:lambda:us-east-1:000000000000:function:secret"


@pytest.mark.parametrize(
    ("action", "params", "query", "resource"),
    [
        ("lambda:ListTags", {"arn": "secret"}, (), SECRET),
        ("lambda:ListTags", {"arn": "function:secret"}, (), SECRET),
        ("lambda:ListTags", {"arn": "000000000000:function:secret"}, (), SECRET),
        ("lambda:ListTags", {"arn": f"{SECRET}:live"}, (), SECRET),
        ("lambda:ListTags", {"arn": MAPPING.replace("arn:aws", "x:y")}, (), MAPPING),
        ("lambda:GetEventSourceMapping", {"uuid": MAPPING.rpartition(":")[2].upper()}, (), MAPPING),
        ("lambda:GetLayerVersion", {"layer": "l", "version": "01"}, (), LAYER),
        ("lambda:GetLayerVersion", {}, (("find", "LayerVersion"), ("Arn", LAYER)), LAYER),
    ],
)
def test_a_deny_holds_however_what_it_names_is_spelt(action, params, query, resource):
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    asked = SimpleNamespace(params=params, query=lambda: list(query))
    policies = SimpleNamespace(refusing=lambda *_: "")

    def by(*statements):
        role = Role(arn=BASIC, statements=(everything, *statements))
        return Caller(account="000000000000", region="us-east-1", key_id="A", role=role)

    assert admitted(asked, by(), action, policies)
    assert admitted(asked, by({"Effect": "Deny", "Action": "*", "Resource": f"{resource}0"}), action, policies)
    with pytest.raises(Refused, match="not authorized"):
        admitted(asked, by({"Effect": "Deny", "Action": "*", "Resource": resource}), action, policies)

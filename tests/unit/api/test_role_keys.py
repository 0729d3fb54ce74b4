"""Functions that call Lambda's API by their own keys: what their role allows, until the key expires."""

import json

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bridge.api.app import AccessRules
from bridge.core.function import LATEST
from bridge.registry.attachments import Attachments
from bridge.registry.minted import KEY_LIFE_S, RENEWED_AHEAD_S, MintedKeys, due_at
from bridge.registry.policies import caller_keys
from bridge.registry.roles import Role
from bridge.registry.statements import INVOKE, Question, make_statement
from bridge.testing.clock import ManualClock
from tests.unit.api.harness import World
from tests.unit.api.making import Made, MemoryFunctions, request
from tests.unit.api.test_awslambda import ACCOUNT, ARN, HOST, REGION, refused
from tests.unit.api.test_awslambda import INVOKE as INVOKE_PATH

ROLE = f"arn:aws:iam::{ACCOUNT}:role/worker"
FUNCTIONS = "/2015-03-31/functions"


def allow(action, resource="*"):
    return {"Effect": "Allow", "Action": action, "Resource": resource}


@pytest.fixture
async def made():
    """Return a world where one key was minted; `made.statements` are those of its role."""
    keys = MintedKeys(clock=ManualClock())
    world = World(
        rules=AccessRules(
            minted=keys.get,
            role_of=lambda arn: Role(arn=arn, statements=tuple(world.statements), is_known=world.is_role_known),
        )
    )
    world.statements = [allow("lambda:*")]
    world.is_role_known = True
    world.catalog.add("other")
    world.key = keys.current(ROLE, account=ACCOUNT, session="caller")
    yield world
    await world.close()


async def call(world, method, target, *, body=b"", key=None, token=None, region=REGION):
    key = key or world.key
    request = AWSRequest(method, f"http://{HOST}{target}", data=body, headers={"host": HOST})
    credentials = Credentials(key.id, key.secret, key.token if token is None else token or None)
    SigV4Auth(credentials, "lambda", region).add_auth(request)
    headers = {name.lower(): value for name, value in request.headers.items() if name.lower() != "host"}
    return await world.ask(method, target, body=body, headers=headers, token=None, host=HOST)


async def test_a_function_does_what_its_role_allows_on_what_it_allows(made):
    made.statements[:] = [allow("lambda:InvokeFunction", ARN)]

    assert (await call(made, "POST", INVOKE_PATH, body=b"{}")).status == 200
    other = await call(made, "POST", INVOKE_PATH.replace("hello", "other"), body=b"{}")
    assert refused(other, 403, "AccessDeniedException") == (
        f"User: arn:aws:sts::{ACCOUNT}:assumed-role/worker/caller is not authorized to perform: lambda:InvokeFunction "
        f"on resource: {ARN.replace('hello', 'other')} because no identity-based policy allows the "
        "lambda:InvokeFunction action"
    )
    assert refused(await call(made, "GET", FUNCTIONS), 403, "AccessDeniedException")


async def test_what_the_role_denies_of_one_function_is_denied_though_all_are_allowed(made):
    made.statements.append({"Effect": "Deny", "Action": "lambda:InvokeFunction", "Resource": ARN})

    assert (await call(made, "POST", INVOKE_PATH.replace("hello", "other"), body=b"{}")).status == 200
    assert refused(await call(made, "POST", INVOKE_PATH, body=b"{}"), 403, "AccessDeniedException")
    assert (await call(made, "GET", FUNCTIONS)).status == 200


@pytest.mark.parametrize("region", ["eu-west-3", "us-west-2"])
async def test_the_region_it_signs_for_is_the_name_space_it_acts_in(made, region):
    """Or a denial of one region's function would be passed by with a signature for another."""
    made.statements.append({"Effect": "Deny", "Action": "lambda:*", "Resource": ARN})

    answer = await call(made, "POST", INVOKE_PATH, body=b"{}", region=region)
    assert refused(answer, 404, "ResourceNotFoundException")
    assert json.loads((await call(made, "GET", FUNCTIONS, region=region)).body)["Functions"] == []
    assert made.runtime.invocations == []


async def test_a_key_of_a_role_that_has_left_the_file_opens_nothing(made):
    made.is_role_known = False

    assert refused(await call(made, "GET", FUNCTIONS), 403, "UnrecognizedClientException")


@pytest.mark.parametrize(("name", "is_allowed"), [("worker-1", True), ("other-1", False)])
async def test_functions_are_created_where_the_role_allows_their_name(tmp_path, name, is_allowed):
    statements = (allow("lambda:CreateFunction", ARN.replace("hello", "worker-*")), allow("iam:PassRole"))
    keys = MintedKeys(clock=ManualClock())
    rules = AccessRules(minted=keys.get, role_of=lambda arn: Role(arn=arn, statements=statements))
    made = Made(tmp_path, MemoryFunctions(), rules=rules)
    await made.made.open()
    made.world.key = keys.current(ROLE, account=ACCOUNT, session="caller")

    answer = await call(made.world, "POST", FUNCTIONS, body=json.dumps(request(FunctionName=name)).encode())

    assert answer.status == (201 if is_allowed else 403), answer.body
    if is_allowed:
        await made.settled(name)
    else:
        text = refused(answer, 403, "AccessDeniedException")
        assert "lambda:CreateFunction on resource: " + ARN.replace("hello", name) in text
    await made.world.close()


@pytest.mark.parametrize("token", ["", "another"])
async def test_a_key_counts_with_its_token_alone(made, token):
    answer = await call(made, "POST", INVOKE_PATH, body=b"{}", token=token)

    assert refused(answer, 403, "UnrecognizedClientException")
    assert made.runtime.invocations == []


async def test_policies_may_name_the_role_or_its_session_and_never_outdo_a_denial():
    from bridge.registry.access import Caller

    class Store:
        async def load(self):
            return {}

        async def save(self, place, document):
            pass

    policies = Attachments(lambda _: Store()).policies
    statement = make_statement("s", action=INVOKE, principal=ROLE, resource=ARN)
    await policies.put((ARN, ""), [statement])

    def refusing(*statements, name="worker"):
        role = Role(arn=f"arn:aws:iam::{ACCOUNT}:role/{name}", statements=statements)
        caller = Caller(account=ACCOUNT, region=REGION, role=role, session="f")
        question = Question(
            action=INVOKE, account=ACCOUNT, arn=caller.arn, role=role.arn, keys=caller_keys(caller)
        )  # fmt: skip
        return policies.refusing((ARN, LATEST), caller, question)

    assert refusing() == ""
    assert refusing(name="another") == "identity"
    assert refusing({"Effect": "Deny", "Action": "lambda:*", "Resource": "*"}) == "identity"


# --- keys ---


async def test_a_key_is_one_of_a_function_and_its_role_and_another_in_time():
    clock = ManualClock()
    keys = MintedKeys(clock=clock)
    first = keys.current(ROLE, account=ACCOUNT, session="f")

    assert keys.current(ROLE, account=ACCOUNT, session="f") is first
    assert keys.current(ROLE, account=ACCOUNT, session="g").id != first.id
    assert keys.get(first.id) is first
    assert keys.get("nobody") is None
    assert first.secret not in repr(first)
    assert first.token not in repr(first)
    assert due_at(first) == pytest.approx(clock.time() + KEY_LIFE_S - RENEWED_AHEAD_S)

    await clock.advance(KEY_LIFE_S - RENEWED_AHEAD_S)
    second = keys.current(ROLE, account=ACCOUNT, session="f")
    assert second.id != first.id
    assert keys.get(first.id) is first  # what runs goes on with it
    await clock.advance(RENEWED_AHEAD_S)
    assert keys.get(first.id) is None
    assert keys.get(second.id) is second


async def test_keys_that_expired_are_forgotten():
    clock = ManualClock()
    keys = MintedKeys(clock=clock)
    for number in range(20):
        keys.current(ROLE, account=ACCOUNT, session=f"f{number}")
    await clock.advance(KEY_LIFE_S)

    keys.current(ROLE, account=ACCOUNT, session="f")

    assert len(keys._keys) == len(keys._current) == 1

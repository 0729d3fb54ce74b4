"""What workers are given of their role: a key of our own, STS's credentials, or nothing; and their end in time."""

import asyncio
from dataclasses import replace

import pytest

from bridge.core.errors import RuntimeUnavailable
from bridge.daemon.aws import AwsReach
from bridge.daemon.role_credentials import LOOK_S, RoleCredentials
from bridge.daemon.roles import Roles
from bridge.registry.catalog import FunctionCatalog
from bridge.registry.minted import KEY_LIFE_S, RENEWED_AHEAD_S
from bridge.testing.clock import ManualClock
from tests.http_stub import http_stub
from tests.unit.aws.test_credentials import DENIED, assumed
from tests.unit.daemon.test_roles import ACCOUNT, DECLARED, FILE, IAM, OTHER, Iam, function, made  # noqa: F401

LAMBDA = 'statements = [{ Effect = "Allow", Action = "lambda:InvokeFunction", Resource = "*" }]\n'


@pytest.fixture
def parts(made):  # noqa: F811
    """Return `parts(text)`: the credentials of a file's functions, with their clock and what was renewed."""

    def make(text, **more):
        settings, clock, renewed = made.settings(text), ManualClock(), []
        aws = AwsReach(settings, clock=clock)
        roles = Roles(settings, aws=aws, catalog=FunctionCatalog([]), clock=clock)
        found = RoleCredentials(settings, roles=roles, aws=aws, clock=clock, renew=renewed.append)
        found.api_url = "http://127.0.0.1:8581"
        return found, clock, renewed

    make.settings = made.settings
    return make


@pytest.fixture
async def sts():
    """STS and IAM in one: every role is there; what STS is asked stands in `sts.asked`."""
    async with http_stub() as stub:
        iam, stub.sts, stub.expires_in = Iam(), [], 3600.0

        def answer(asked):
            if b"AssumeRole" in asked.body:
                stub.sts.append(asked.body.decode())
                if stub.expires_in is None:
                    return DENIED
                return assumed(len(stub.sts), expires_at=stub.clock.time() + stub.expires_in)
            return iam(asked)

        stub.answer = answer
        yield stub


def version(role=DECLARED, **environment):
    latest = function("f", role).latest
    return replace(latest, environment=environment)


async def test_without_a_role_or_with_an_unknown_one_there_is_nothing(parts):
    credentials, _, _ = parts(FILE)

    assert await credentials.variables(version("")) == {}
    assert await credentials.variables(version(OTHER)) == {}


async def test_a_role_that_cannot_be_assumed_starts_no_worker(parts):
    credentials, _, _ = parts(FILE + '[roles]\nunknown = "deny"\n')

    with pytest.raises(RuntimeUnavailable, match="cannot be assumed by Lambda"):
        await credentials.variables(version(OTHER))


async def test_a_key_of_our_own_for_our_own_api(parts):
    credentials, _, _ = parts(FILE + LAMBDA)

    given = await credentials.variables(version())

    key = credentials.keys.get(given["AWS_ACCESS_KEY_ID"])
    assert (key.secret, key.token) == (given["AWS_SECRET_ACCESS_KEY"], given["AWS_SESSION_TOKEN"])
    assert (key.role, key.session, key.account) == (DECLARED, "f", ACCOUNT)
    assert given["AWS_ENDPOINT_URL_LAMBDA"] == "http://127.0.0.1:8581"
    assert await credentials.variables(version()) == given


async def test_a_role_without_rights_at_lambda_is_not_led_there_and_a_set_endpoint_stays(parts):
    assert "AWS_ENDPOINT_URL_LAMBDA" not in await parts(FILE)[0].variables(version())
    given = await parts(FILE + LAMBDA)[0].variables(version(AWS_ENDPOINT_URL_LAMBDA="http://else"))
    assert "AWS_ENDPOINT_URL_LAMBDA" not in given


async def test_workers_are_replaced_before_their_key_ends(parts):
    credentials, clock, renewed = parts(FILE)
    first = await credentials.variables(version())
    task = asyncio.create_task(credentials.run())
    await clock.advance(KEY_LIFE_S - RENEWED_AHEAD_S - LOOK_S)
    assert renewed == []
    await clock.advance(2 * LOOK_S)
    assert renewed == ["f"]
    assert (await credentials.variables(version()))["AWS_ACCESS_KEY_ID"] != first["AWS_ACCESS_KEY_ID"]
    await clock.advance(2 * LOOK_S)
    assert renewed == ["f"]
    task.cancel()


async def test_with_a_connection_sts_gives_them(parts, sts):
    text = FILE + IAM.format(url=sts.url) + 'endpoint_urls = { sqs = "http://127.0.0.1:9324" }\n'
    credentials, clock, _ = parts(text)
    sts.clock = clock

    given = await credentials.variables(version())

    assert given == {
        "AWS_ACCESS_KEY_ID": "ROLE1", "AWS_SECRET_ACCESS_KEY": "s1", "AWS_SESSION_TOKEN": "t1",
        "AWS_ENDPOINT_URL": sts.url, "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:9324",
    }  # fmt: skip
    (asked,) = sts.sts
    assert "RoleSessionName=f-" in asked
    assert DECLARED.rpartition("/")[2] in asked
    assert await credentials.variables(version()) == given
    assert (await credentials.variables(version(OTHER)))["AWS_ACCESS_KEY_ID"] == "ROLE2"
    await clock.advance(3600.0 - RENEWED_AHEAD_S)
    assert (await credentials.variables(version()))["AWS_ACCESS_KEY_ID"] == "ROLE3"


async def test_a_role_that_sts_refuses_starts_no_worker(parts, sts):
    credentials, clock, _ = parts(FILE + IAM.format(url=sts.url))
    sts.clock, sts.expires_in = clock, None

    with pytest.raises(RuntimeUnavailable, match=f"role {DECLARED} not assumed"):
        await credentials.variables(version())


async def test_another_connection_replaces_all_workers(parts, sts):
    credentials, _, renewed = parts(FILE)
    await credentials.variables(version())

    credentials.configure(parts.settings(FILE))
    assert renewed == []
    credentials.configure(parts.settings(FILE + IAM.format(url=sts.url)))
    assert renewed == ["f"]

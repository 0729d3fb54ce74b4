"""Credentials: explicit, of boto's chain, of a role; asked for again when there were none or AWS refused them."""

import asyncio
import datetime as dt

import pytest

from bridge.aws.credentials import ASK_AGAIN_S, ConnectionCredentials, CredentialsMissing
from bridge.aws.errors import AwsTroubleKind, trouble
from bridge.core.connection import AwsConnection
from tests.http_stub import Answer, failed

LISTED = Answer(body=b'{"StreamNames": [], "HasMoreStreams": false}')
ROLE = "arn:aws:iam::123456789012:role/bridge"

DENIED = Answer(
    status=403,
    body=b"<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>",
)


def assumed(number: int, *, expires_at: float) -> Answer:
    expires = dt.datetime.fromtimestamp(expires_at, dt.UTC).isoformat()
    body = (
        '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>'
        f"<AccessKeyId>ROLE{number}</AccessKeyId><SecretAccessKey>s{number}</SecretAccessKey>"
        f"<SessionToken>t{number}</SessionToken><Expiration>{expires}</Expiration></Credentials>"
        "</AssumeRoleResult></AssumeRoleResponse>"
    )
    return Answer(body=body.encode(), headers={"Content-Type": "text/xml"})


@pytest.fixture
def role(stub):
    return AwsConnection(
        name="main",
        region="eu-central-1",
        endpoint_url=stub.url,
        role_arn=ROLE,
        external_id="x7",
        access_key_id="AKID",
        secret_access_key="secret",
    )


async def test_explicit_ones_sign(stub, clients, connection):
    stub.answer = LISTED

    await (await clients.client(connection, "kinesis")).list_streams()

    assert "Credential=AKID/" in stub.asked[0].headers["authorization"]


async def test_none_at_all_is_one_line_and_nothing_is_sent(stub, clients):
    connection = AwsConnection(name="main", region="eu-central-1", endpoint_url=stub.url)
    kinesis = await clients.client(connection, "kinesis")

    with pytest.raises(CredentialsMissing) as caught:
        await kinesis.list_streams()

    found = trouble(caught.value)
    assert found.kind is AwsTroubleKind.DENIED
    assert found.message.startswith("no AWS credentials for connections.main: write access_key_id and")
    assert "\n" not in found.message
    assert [] == stub.asked


async def test_a_client_made_while_there_were_none_finds_them_later(stub, clients, clock, monkeypatch, tmp_path):
    connection = AwsConnection(name="main", region="eu-central-1", endpoint_url=stub.url)
    stub.answer = LISTED
    kinesis = await clients.client(connection, "kinesis")
    with pytest.raises(CredentialsMissing):
        await kinesis.list_streams()
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = LATER\naws_secret_access_key = s\n")

    with pytest.raises(CredentialsMissing):
        await kinesis.list_streams()  # not asked at every call
    await clock.advance(ASK_AGAIN_S)
    await kinesis.list_streams()

    assert "Credential=LATER/" in stub.asked[0].headers["authorization"]


async def test_a_profile_is_that_of_botos_files(stub, clients, tmp_path):
    (tmp_path / "credentials").write_text("[p]\naws_access_key_id = OFP\naws_secret_access_key = s\n")
    connection = AwsConnection(name="main", region="eu-central-1", endpoint_url=stub.url, profile="p")
    gone = AwsConnection(name="main", region="eu-central-1", endpoint_url=stub.url, profile="q")
    stub.answer = LISTED

    await (await clients.client(connection, "kinesis")).list_streams()
    with pytest.raises(CredentialsMissing, match=r"profile q gives none: .*could not be found"):
        await (await clients.client(gone, "kinesis")).list_streams()

    assert "Credential=OFP/" in stub.asked[0].headers["authorization"]


@pytest.mark.parametrize("code", ["ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException"])
async def test_what_aws_refuses_is_asked_for_again(stub, clients, tmp_path, code):
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = OLD\naws_secret_access_key = s\n")
    kinesis = await clients.client(AwsConnection(name="m", region="eu-central-1", endpoint_url=stub.url), "kinesis")
    stub.answers = [failed(400, code), LISTED]
    with pytest.raises(Exception, match=code):
        await kinesis.list_streams()
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = NEW\naws_secret_access_key = s\n")

    await kinesis.list_streams()

    assert ["OLD", "NEW"] == [asked.headers["authorization"].split("Credential=")[1][:3] for asked in stub.asked]


class TestRole:
    async def test_is_assumed_once_and_renewed_before_it_expires(self, stub, role, clock):
        made = 0

        def answer(_asked):
            nonlocal made
            made += 1
            return assumed(made, expires_at=clock.time() + 3600)

        stub.answer = answer
        credentials = ConnectionCredentials(role, clock=clock)

        first = await asyncio.gather(*(credentials.get_frozen_credentials() for _ in range(5)))
        await clock.advance(3299)
        same = await credentials.get_frozen_credentials()
        await clock.advance(2)
        later = await credentials.get_frozen_credentials()

        assert ("ROLE1", "s1", "t1") == tuple(first[0])[:3]
        assert {first[0]} == {*first, same}
        assert ("ROLE2", 2) == (later.access_key, len(stub.asked))
        assert b"ExternalId=x7" in stub.asked[0].body
        assert b"RoleSessionName=bridge" in stub.asked[0].body

    async def test_a_short_life_is_renewed_at_its_half(self, stub, role, clock):
        stub.answers = [assumed(n, expires_at=clock.time() + n * 60) for n in (1, 2)]
        credentials = ConnectionCredentials(role, clock=clock)

        await credentials.get_frozen_credentials()
        await clock.advance(31)

        assert "ROLE2" == (await credentials.get_frozen_credentials()).access_key

    async def test_a_failed_renewal_uses_what_is_still_good_and_is_tried_again(self, stub, role, clock):
        start = clock.time()
        stub.answers = [assumed(1, expires_at=start + 1000), failed(500, "InternalFailure")]
        credentials = ConnectionCredentials(role, clock=clock)
        await credentials.get_frozen_credentials()

        await clock.advance(701)
        good = await credentials.get_frozen_credentials()
        stub.answers = [assumed(2, expires_at=start + 5000)]
        await clock.advance(ASK_AGAIN_S)

        assert "ROLE1" == good.access_key
        assert "ROLE2" == (await credentials.get_frozen_credentials()).access_key

    async def test_expired_and_not_to_be_renewed_is_told_and_not_for_ever(self, stub, role, clock):
        start = clock.time()
        stub.answers = [assumed(1, expires_at=start + 1000), DENIED]
        credentials = ConnectionCredentials(role, clock=clock)
        await credentials.get_frozen_credentials()
        await clock.advance(1001)

        with pytest.raises(CredentialsMissing, match=f"role {ROLE} not assumed: .*AccessDenied"):
            await credentials.get_frozen_credentials()
        with pytest.raises(CredentialsMissing):
            await credentials.get_frozen_credentials()
        asked = len(stub.asked)
        stub.answers = [assumed(2, expires_at=start + 5000)]
        await clock.advance(ASK_AGAIN_S)

        assert 2 == asked
        assert "ROLE2" == (await credentials.get_frozen_credentials()).access_key

    async def test_what_it_is_does_not_print(self, stub, role, clock):
        stub.answer = assumed(1, expires_at=clock.time() + 3600)

        found = await ConnectionCredentials(role, clock=clock).get_frozen_credentials()

        assert "s1" not in repr(found)
        assert "secret" not in repr(role)

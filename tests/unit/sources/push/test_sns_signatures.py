"""SNS's signatures: certificates of our own served by a fake, forgeries, and how much strangers can make us fetch.

1 good ones  2 forgeries  3 certificates  4 time  5 fetching
"""

import asyncio
import base64
import datetime as dt

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bridge.core.errors import ConfigError
from bridge.events.http import HttpRequest
from bridge.sources.push.bounds import AT_ONCE_MAX, PER_MINUTE_MAX
from bridge.sources.push.signatures import Unavailable, make_verifier
from bridge.sources.push.signatures.certificates import CERTIFICATES_KEPT_MAX, FAILURE_KEPT_S, read_certificate
from bridge.sources.push.signatures.sns import Sns
from bridge.testing.clock import ManualClock
from bridge.util.https import FetchFailed
from tests.sns_topic import CERTIFICATE_URL, HOST, Topic, body_of, certificate_pem, rsa_key

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()
STAMP = "2026-01-01T00:00:00.000Z"


class Certificates:
    """Serves certificates by URL and keeps what was asked for."""

    def __init__(self, **served):
        self.served = {CERTIFICATE_URL: certificate_pem()} | served
        self.asked = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, url):
        self.asked.append(url)
        await self.gate.wait()
        served = self.served.get(url, FetchFailed(f"{HOST} answered 404", status=404))
        if isinstance(served, Exception):
            raise served
        return served


@pytest.fixture
def clock():
    return ManualClock(time=NOW)


@pytest.fixture
def certificates():
    return Certificates()


@pytest.fixture
def verifier(clock, certificates):
    return Sns(secrets=(), now=clock.stepped, fetch=certificates)


@pytest.fixture(params=["1", "2"])
def topic(request):
    return Topic(version=request.param)


def sent(members, *headers):
    body = members if isinstance(members, bytes) else body_of(members)
    return HttpRequest(method="POST", path=b"/sns", headers=headers, body=body)


async def verify(verifier, members, *headers):
    request = sent(members, *headers)
    await verifier.prepare(request)
    return verifier.verify(request)


# --- 1 good ones ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", [{}, {"Subject": "My first: ünïcödé\n"}])
async def test_a_notification_is_taken_and_named_by_its_message_id(verifier, topic, subject):
    members = topic.notification('héllo\n\\ "wörld" \u2028', Timestamp=STAMP, **subject)

    verdict = await verify(verifier, members)

    assert (True, members["MessageId"]) == (verdict.ok, verdict.delivery_id)


@pytest.mark.parametrize("kind", ["SubscriptionConfirmation", "UnsubscribeConfirmation"])
async def test_a_confirmation_is_taken(verifier, topic, kind):
    assert (await verify(verifier, topic.confirmation(kind, Timestamp=STAMP))).ok


async def test_attributes_are_not_signed_and_do_not_hinder(verifier, topic):
    members = topic.notification(Timestamp=STAMP) | {"MessageAttributes": {"a": {"Type": "String", "Value": "b"}}}

    assert (await verify(verifier, members)).ok


async def test_one_certificate_serves_many_messages(verifier, certificates, topic):
    for _ in range(5):
        assert (await verify(verifier, topic.notification(Timestamp=STAMP))).ok

    assert [CERTIFICATE_URL] == certificates.asked


# --- 2 forgeries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Message", "MessageId", "Timestamp", "Subject", "TopicArn"])
async def test_whatever_is_signed_cannot_be_changed(verifier, topic, name):
    members = topic.notification(Subject="s", Timestamp=STAMP)
    other = {"TopicArn": Topic("other").arn, "Timestamp": "2026-01-01T00:00:00.001Z"}

    verdict = await verify(verifier, members | {name: other.get(name, "x")})

    assert (False, "the signature does not match") == (verdict.ok, verdict.reason)


@pytest.mark.parametrize("name", ["Token", "SubscribeURL", "Message"])
async def test_whatever_is_signed_of_a_confirmation_cannot_be_changed(verifier, topic, name):
    verdict = await verify(verifier, topic.confirmation(Timestamp=STAMP) | {name: "x"})

    assert "the signature does not match" == verdict.reason


async def test_a_notification_is_no_confirmation(verifier, topic):
    members = topic.notification(Timestamp=STAMP) | {
        "Type": "SubscriptionConfirmation",
        "Token": "t",
        "SubscribeURL": "u",
    }

    assert "the signature does not match" == (await verify(verifier, members)).reason


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"Signature": ""}, "the signature does not match"),
        ({"Signature": "*"}, "the signature does not match"),
        ({"Signature": base64.b64encode(b"x" * 256).decode()}, "the signature does not match"),
        ({"Signature": None}, "the signature does not match"),
        ({"SignatureVersion": "3"}, "SignatureVersion is neither 1 nor 2"),
        ({"SignatureVersion": None}, "SignatureVersion is neither 1 nor 2"),
        ({"SignatureVersion": 1}, "SignatureVersion is no text"),
        ({"SigningCertURL": None}, "SigningCertURL is not at https://sns.us-west-2.amazonaws.com"),
        ({"SigningCertURL": "https://evil.example/a.pem"}, "SigningCertURL is not at https://sns.us-west-2.amazonaws.com"),
        ({"TopicArn": "x"}, "TopicArn is 'x': must be an ARN: arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE"),
        ({"Type": "Gossip"}, "Type is 'Gossip'; it must be one of Notification, SubscriptionConfirmation, UnsubscribeConfirmation"),
    ],
)  # fmt: skip
async def test_what_is_refused(verifier, changed, reason):
    verdict = await verify(verifier, Topic().notification(Timestamp=STAMP) | changed)

    assert (False, reason) == (verdict.ok, verdict.reason)


async def test_the_other_version_s_hash_does_not_match(verifier):
    members = Topic(version="1").notification(Timestamp=STAMP) | {"SignatureVersion": "2"}

    assert "the signature does not match" == (await verify(verifier, members)).reason


async def test_another_key_s_signature_does_not_match(verifier):
    topic = Topic()
    members = topic.notification(Timestamp=STAMP)
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    forged = topic.signed({name: members[name] for name in members if "Sign" not in name}, stranger)

    assert "the signature does not match" == (await verify(verifier, forged)).reason


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'"x"'])
async def test_what_is_no_message_asks_for_nothing(verifier, certificates, body):
    verdict = await verify(verifier, body)

    assert (False, []) == (verdict.ok, certificates.asked)
    assert verdict.reason.startswith("the body is ")


async def test_raw_delivery_is_not_signed(verifier, certificates):
    verdict = await verify(verifier, b"hello", (b"x-amz-sns-rawdelivery", b"true"))

    assert "raw message delivery is not signed; such a route needs another verify" == verdict.reason
    assert [] == certificates.asked


# --- 3 certificates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "alternative", "host"),
    [
        ("sns.amazonaws.com", "", HOST),
        ("sns-signing.af-south-1.amazonaws.com", "", "sns.af-south-1.amazonaws.com"),
        ("somebody", "sns.us-west-2.amazonaws.com", HOST),
        ("sns-cn-north-1.amazonaws.com.cn", "", "sns.cn-north-1.amazonaws.com.cn"),
        ("sns-us-gov-west-1.amazonaws.com", "", "sns.us-gov-east-1.amazonaws.com"),
    ],
)
def test_names_that_aws_signs_under(name, alternative, host):
    assert read_certificate(certificate_pem(name=name, alternative=alternative), host=host).is_valid(NOW)


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("evil.example", HOST), ("sns.amazonaws.com.evil.example", HOST), ("s3.amazonaws.com", HOST),
        ("sns.eu-west-1.amazonaws.com", HOST), ("sns.amazonaws.com", "sns.cn-north-1.amazonaws.com.cn"),
        ("sns-us-gov-west-1.amazonaws.com", HOST),
    ],
)  # fmt: skip
def test_no_other_name_is_one_of_sns(name, host):
    with pytest.raises(ValueError, match="the certificate is not of SNS"):
        read_certificate(certificate_pem(name=name), host=host)


@pytest.mark.parametrize("key", ["rsa1024", "ec"])
def test_a_weak_key_or_one_of_another_kind_is_refused(key):
    made = ec.generate_private_key(ec.SECP256R1()) if key == "ec" else rsa_key(1024)

    with pytest.raises(ValueError, match="no RSA key of 2048 bits or more"):
        read_certificate(certificate_pem(made), host=HOST)


@pytest.mark.parametrize("pem", [b"", b"<html>", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
async def test_what_is_no_certificate_refuses_the_message(verifier, certificates, pem):
    certificates.served[CERTIFICATE_URL] = pem

    verdict = await verify(verifier, Topic().notification(Timestamp=STAMP))

    assert "SigningCertURL has no certificate of SNS" == verdict.reason


@pytest.mark.parametrize(
    ("valid_from", "days"), [(dt.datetime(2027, 1, 1, tzinfo=dt.UTC), 9), (dt.datetime(2020, 1, 1, tzinfo=dt.UTC), 9)]
)
async def test_a_certificate_that_is_not_yet_or_no_more_good_refuses_the_message(
    verifier, certificates, valid_from, days
):
    valid_for = dt.timedelta(days=days)
    certificates.served[CERTIFICATE_URL] = certificate_pem(valid_from=valid_from, valid_for=valid_for)

    verdict = await verify(verifier, Topic().notification(Timestamp=STAMP))

    assert "the certificate has run out, or is not good yet" == verdict.reason


async def test_a_certificate_is_fetched_anew_when_it_has_run_out(verifier, certificates, clock):
    valid_from = dt.datetime(2025, 12, 31, tzinfo=dt.UTC)
    certificates.served[CERTIFICATE_URL] = certificate_pem(valid_from=valid_from, valid_for=dt.timedelta(days=2))
    assert (await verify(verifier, Topic().notification(Timestamp=STAMP))).ok
    certificates.served[CERTIFICATE_URL] = certificate_pem()
    clock.step(2 * 86_400)

    verdict = await verify(verifier, Topic().notification(Timestamp="2026-01-03T00:00:00.000Z"))

    assert verdict.ok
    assert 2 == len(certificates.asked)


# --- 4 time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stamp", "ok"),
    [
        ("2025-12-31T22:55:00.000Z", True), ("2025-12-31T22:54:59.000Z", False),
        ("2026-01-01T00:05:00.000Z", True), ("2026-01-01T00:05:01.000Z", False),
    ],
)  # fmt: skip
async def test_sns_tries_for_an_hour_and_nothing_older_is_taken(verifier, stamp, ok):
    verdict = await verify(verifier, Topic().notification(Timestamp=stamp))

    assert ok == verdict.ok
    assert ok or "the timestamp is more than 3900 s ago, or ahead of now" == verdict.reason


async def test_a_timestamp_that_is_none_is_refused(verifier):
    verdict = await verify(verifier, Topic().notification(Timestamp="soon"))

    assert "Timestamp is no time such as 2012-05-02T00:54:06.655Z" == verdict.reason


# --- 5 fetching -------------------------------------------------------------------------------------------------------


def at(number):
    return f"https://{HOST}/SimpleNotificationService-{number}.pem"


def signed_with(number):
    return Topic().notification(Timestamp=STAMP, SigningCertURL=at(number))


async def test_messages_that_come_at_once_share_a_fetch(verifier, certificates):
    certificates.gate.clear()
    checks = [asyncio.create_task(verify(verifier, Topic().notification(Timestamp=STAMP))) for _ in range(8)]
    await asyncio.sleep(0)
    certificates.gate.set()

    verdicts = await asyncio.gather(*checks)

    assert [True] * 8 == [verdict.ok for verdict in verdicts]
    assert 1 == len(certificates.asked)


@pytest.mark.parametrize(
    "failure", [FetchFailed("no connection"), FetchFailed("answered 500", status=500), FetchFailed("302", status=302)]
)
async def test_a_certificate_that_cannot_be_had_now_is_the_sender_s_to_try_again(verifier, certificates, failure):
    certificates.served[CERTIFICATE_URL] = failure

    with pytest.raises(Unavailable, match="the certificate could not be had; try again"):
        await verify(verifier, Topic().notification(Timestamp=STAMP))

    certificates.served[CERTIFICATE_URL] = certificate_pem()
    assert (await verify(verifier, Topic().notification(Timestamp=STAMP))).ok


async def test_those_who_waited_for_a_fetch_that_failed_are_told_to_try_again(verifier, certificates):
    certificates.served[CERTIFICATE_URL] = FetchFailed("no connection")
    certificates.gate.clear()
    checks = [asyncio.create_task(verify(verifier, Topic().notification(Timestamp=STAMP))) for _ in range(3)]
    await asyncio.sleep(0)
    certificates.gate.set()

    ends = await asyncio.gather(*checks, return_exceptions=True)

    assert [Unavailable] * 3 == [type(end) for end in ends]


async def test_a_url_without_a_certificate_is_not_asked_again_for_a_while(verifier, certificates, clock):
    for _ in range(3):
        assert not (await verify(verifier, signed_with("none"))).ok
    assert 1 == len(certificates.asked)

    clock.step(FAILURE_KEPT_S)

    assert not (await verify(verifier, signed_with("none"))).ok
    assert 2 == len(certificates.asked)


async def test_strangers_can_make_us_fetch_so_much_a_minute(verifier, certificates, clock):
    for number in range(PER_MINUTE_MAX):
        await verify(verifier, signed_with(number))
    with pytest.raises(Unavailable, match="too many certificates are asked for"):
        await verify(verifier, signed_with("more"))
    assert PER_MINUTE_MAX == len(certificates.asked)

    clock.step(60)

    assert (await verify(verifier, Topic().notification(Timestamp="2026-01-01T00:01:00.000Z"))).ok


async def test_so_many_fetches_run_at_once(verifier, certificates):
    certificates.gate.clear()
    checks = [asyncio.create_task(verify(verifier, signed_with(number))) for number in range(AT_ONCE_MAX)]
    await asyncio.sleep(0)

    with pytest.raises(Unavailable, match="too many"):
        await verify(verifier, signed_with("more"))

    certificates.gate.set()
    await asyncio.gather(*checks)


async def test_what_is_known_is_checked_whatever_strangers_ask_for(verifier, certificates):
    assert (await verify(verifier, Topic().notification(Timestamp=STAMP))).ok
    for number in range(PER_MINUTE_MAX - 1):
        await verify(verifier, signed_with(number))

    assert (await verify(verifier, Topic().notification(Timestamp=STAMP))).ok


async def test_few_certificates_are_kept(verifier, certificates, clock):
    for number in range(CERTIFICATES_KEPT_MAX + 1):
        certificates.served[at(number)] = certificate_pem()
        await verify(verifier, signed_with(number))
        clock.step(60)
    certificates.asked.clear()

    await verifier.prepare(sent(signed_with(CERTIFICATES_KEPT_MAX)))
    await verifier.prepare(sent(signed_with(0)))

    assert [at(0)] == certificates.asked


async def test_a_request_that_is_given_up_leaves_nothing_behind(verifier, certificates):
    certificates.gate.clear()
    first = asyncio.create_task(verify(verifier, Topic().notification(Timestamp=STAMP)))
    await asyncio.sleep(0)
    second = asyncio.create_task(verify(verifier, Topic().notification(Timestamp=STAMP)))
    await asyncio.sleep(0)
    first.cancel()

    with pytest.raises(Unavailable):
        await second
    certificates.gate.set()
    assert (await verify(verifier, Topic().notification(Timestamp=STAMP))).ok


def test_it_takes_no_secrets():
    with pytest.raises(ConfigError, match="scheme sns takes no secrets"):
        make_verifier("sns", secrets=["s"], clock=ManualClock())

"""Formats of services that notify, as routes serve them: what is stored, answered at once, refused, and told twice.

1 CloudEvents  2 S3 and MinIO  3 EventBridge  4 CloudWatch Logs  5 SNS  6 bad input of every format
"""

import asyncio
import base64
import gzip
import json
from pathlib import Path

import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from bridge.core import limits
from bridge.core.invocation import InvocationType
from bridge.sources.push.bounds import AT_ONCE_MAX, PER_MINUTE_MAX
from bridge.sources.push.routes import Route
from bridge.sources.push.signatures import make_verifier
from bridge.sources.push.signatures.sns import Sns
from bridge.sources.push.webhook import WebhookSource
from bridge.testing.clock import ManualClock
from bridge.testing.push import MemoryIntake, ScriptedInvoker
from bridge.util.https import FetchFailed
from tests.sns_topic import HOST, Topic, body_of, certificate_pem

GOLDEN = Path(__file__).parents[2] / "events" / "golden"
NOW = 1_767_225_600.0
STAMP = "2026-01-01T00:00:00.000Z"
SYNC = InvocationType.REQUEST_RESPONSE
FORMATS = ("cloudevents", "s3", "eventbridge", "cloudwatch-logs", "sns")
STRUCTURED = {"content-type": "application/cloudevents+json"}
BATCH = {"content-type": "application/cloudevents-batch+json"}
CLOUDEVENT = {"specversion": "1.0", "id": "A1", "source": "/here", "type": "com.example.thing"}


def golden(name):
    return (GOLDEN / name).read_bytes()


class Mounted:
    """One route and a sender."""

    def __init__(self, format_, *, scheme="none", secrets=(), verifier=None, **options):
        self.clock = ManualClock(time=NOW)
        self.intake = MemoryIntake()
        self.invoker = ScriptedInvoker()
        route = Route(
            name="notices",
            path="/in",
            function="hello",
            verifier=verifier or make_verifier(scheme, secrets=secrets, clock=self.clock),
            format=format_,
            **options,
        )
        self.source = WebhookSource(
            [route],
            intake=self.intake,
            invoker=self.invoker,
            clock=self.clock,
            account_id="123456789012",
            region="eu-central-1",
        )

    async def send(self, body=b"", headers=None, *, method="POST"):
        """Return (status, headers, body)."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = []

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            sent.append(message)

        pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
        scope = {"type": "http", "method": method, "raw_path": b"/in", "path": "/in", "query_string": b"",
                 "headers": pairs, "http_version": "1.1", "client": ("203.0.113.5", 4711)}  # fmt: skip
        await self.source(scope, receive, send)
        return sent[0]["status"], dict(sent[0]["headers"]), sent[1].get("body", b"")

    async def accept(self, body=b"", headers=None):
        """Send what must be taken, and return the answer's members."""
        status, _, answer = await self.send(body, headers)
        assert status == 202, answer
        return json.loads(answer)

    async def refuse(self, status, body=b"", headers=None):
        """Send what must be refused with nothing stored, and return the one line."""
        got, answered, line = await self.send(body, headers)
        assert got == status, line
        assert answered[b"content-type"] == b"application/json"
        assert self.intake.stored == []
        assert line.endswith(b"}\n")
        assert line.count(b"\n") == 1
        return json.loads(line)["error"]

    @property
    def events(self):
        return [json.loads(record.payload) for record in self.intake.stored]


# --- 1 CloudEvents ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [to_binary_event, to_structured_event])
async def test_what_the_sdk_posts_is_stored_as_json(convert):
    sent = convert(CloudEvent(CLOUDEVENT | {"datacontenttype": "application/json", "subject": "ünï"}, {"id": 1}))
    mounted = Mounted("cloudevents")

    answer = await mounted.accept(sent.body, sent.headers)

    (record,) = mounted.intake.stored
    assert answer == {"id": record.id}
    assert CLOUDEVENT | {"subject": "ünï", "data": {"id": 1}} == {
        name: value for name, value in mounted.events[0].items() if name not in ("datacontenttype", "time")
    }
    assert "/here A1" == record.delivery_id


async def test_a_batch_becomes_as_many_events():
    mounted = Mounted("cloudevents")

    answer = await mounted.accept(golden("vendors/cloudevents-batch.json"), BATCH)

    assert answer == {"ids": [record.id for record in mounted.intake.stored]}
    assert json.loads(golden("vendors/cloudevents-batch.json")) == mounted.events


async def test_an_empty_batch_is_taken_and_a_batch_of_one_is_a_batch():
    mounted = Mounted("cloudevents")

    assert {"ids": []} == await mounted.accept([], BATCH)
    assert ["ids"] == list(await mounted.accept([CLOUDEVENT], BATCH))


async def test_an_event_sent_again_in_another_mode_is_the_same():
    mounted = Mounted("cloudevents")
    first = await mounted.accept(CLOUDEVENT, STRUCTURED)

    again = await mounted.accept(b"", {f"ce-{name}": value for name, value in CLOUDEVENT.items()})
    batch = await mounted.accept([CLOUDEVENT, CLOUDEVENT | {"id": "A2"}], BATCH)

    assert first | {"duplicate": True} == again
    assert (1, first["id"]) == (batch["duplicates"], batch["ids"][0])
    assert 2 == len(mounted.intake.stored)


async def test_a_long_name_is_kept_as_its_hash():
    mounted = Mounted("cloudevents")

    await mounted.accept(CLOUDEVENT | {"id": "x" * 5000}, STRUCTURED)

    assert mounted.intake.stored[0].delivery_id.startswith("sha256:")


async def test_a_batch_is_bounded_and_not_for_an_answer():
    events = [CLOUDEVENT | {"id": str(number)} for number in range(limits.REQUEST_EVENTS_MAX + 1)]

    assert f"{limits.REQUEST_EVENTS_MAX} at most" in await Mounted("cloudevents").refuse(413, events, BATCH)
    assert "one event a request" in await Mounted("cloudevents", invocation_type=SYNC).refuse(400, [CLOUDEVENT], BATCH)


@pytest.mark.parametrize(
    ("returned", "content_type"),
    [
        (CLOUDEVENT | {"data": 1}, b"application/cloudevents+json"),
        ({"id": 1}, b"application/json"),
        (None, b"application/json"),
    ],
)
async def test_a_cloudevent_that_the_function_returns_is_answered_as_one(returned, content_type):
    mounted = Mounted("cloudevents", invocation_type=SYNC)
    mounted.invoker.answers["hello"] = lambda *_: json.dumps(returned).encode()

    status, headers, body = await mounted.send(CLOUDEVENT, STRUCTURED)

    assert (200, content_type, returned) == (status, headers[b"content-type"], json.loads(body))


class TestHandshake:
    async def ask(self, mounted, **headers):
        return await mounted.send(
            headers={name.replace("_", "-"): value for name, value in headers.items()}, method="OPTIONS"
        )

    @pytest.mark.parametrize("options", [{}, {"scheme": "bearer", "secrets": ["s"]}, {"invocation_type": SYNC}])
    async def test_an_origin_that_asks_is_allowed_whatever_verifies_its_posts(self, options):
        mounted = Mounted("cloudevents", **options)

        status, headers, body = await self.ask(mounted, webhook_request_origin="eventemitter.example.com")

        assert (200, b"", b"POST") == (status, body, headers[b"allow"])
        assert b"eventemitter.example.com" == headers[b"webhook-allowed-origin"]
        assert b"webhook-allowed-rate" not in headers
        assert [] == mounted.intake.stored

    async def test_a_rate_that_is_asked_for_is_allowed(self):
        _, headers, _ = await self.ask(Mounted("cloudevents"), webhook_request_origin="a", webhook_request_rate="120")

        assert b"*" == headers[b"webhook-allowed-rate"]

    async def test_without_an_origin_it_is_no_handshake(self):
        status, headers, _ = await self.ask(Mounted("cloudevents"))

        assert (405, b"POST, OPTIONS") == (status, headers[b"allow"])

    @pytest.mark.parametrize("format_", [name for name in FORMATS if name != "cloudevents"])
    async def test_no_other_format_has_one(self, format_):
        status, _, _ = await self.ask(Mounted(format_), webhook_request_origin="a")

        assert 405 == status


# --- 2 S3 and MinIO ---------------------------------------------------------------------------------------------------


async def test_what_minio_posts_becomes_an_event_of_s3_and_is_known_when_it_comes_again():
    mounted = Mounted("s3", scheme="bearer", secrets=["token"])
    headers = {"authorization": "Bearer token", "content-type": "application/json"}

    first = await mounted.accept(golden("vendors/minio-put.json"), headers)
    await mounted.accept(golden("vendors/minio-delete.json"), headers)
    again = await mounted.accept(golden("vendors/minio-put.json"), headers)

    assert ["ObjectCreated:Put", "ObjectRemoved:Delete"] == [
        event["Records"][0]["eventName"] for event in mounted.events
    ]
    assert "eu-central-1" == mounted.events[0]["Records"][0]["awsRegion"]
    assert first | {"duplicate": True} == again


async def test_the_test_of_s3_is_answered_and_stored_nowhere():
    mounted = Mounted("s3")

    status, _, body = await mounted.send(golden("vendors/s3-test-event.json"))

    assert (200, {"test": True}, []) == (status, json.loads(body), mounted.intake.stored)


# --- 3 EventBridge ----------------------------------------------------------------------------------------------------


async def test_an_envelope_passes_as_it_is_and_is_known_by_its_id():
    mounted = Mounted("eventbridge")
    body = golden("powertools-python/eventBridgeEvent.json")

    first = await mounted.accept(body)

    assert body.strip() == mounted.intake.stored[0].payload
    assert first | {"duplicate": True} == await mounted.accept(body)


async def test_an_entry_gets_the_account_and_region_of_here():
    mounted = Mounted("eventbridge")

    await mounted.accept(golden("vendors/putevents-entry.json"))

    assert ("123456789012", "eu-central-1") == (mounted.events[0]["account"], mounted.events[0]["region"])


async def test_entries_are_a_batch():
    mounted = Mounted("eventbridge")
    entry = json.loads(golden("vendors/putevents-entry.json"))

    answer = await mounted.accept({"Entries": [entry, entry]})

    assert answer == {"ids": [record.id for record in mounted.intake.stored]}


async def test_other_json_becomes_a_detail_where_the_route_says_of_what():
    mounted = Mounted("eventbridge", format_options={"bus_source": "com.example", "detail_type": "Thing happened"})

    await mounted.accept({"id": 7})

    (event,) = mounted.events
    assert ("com.example", "Thing happened", {"id": 7}) == (event["source"], event["detail-type"], event["detail"])
    assert "bus_source and detail_type" in await Mounted("eventbridge").refuse(400, {"id": 7})


# --- 4 CloudWatch Logs ------------------------------------------------------------------------------------------------


async def test_lines_are_packed_under_the_source_s_name():
    mounted = Mounted("cloudwatch-logs")

    await mounted.accept(["one", "two"])

    told = json.loads(gzip.decompress(base64.b64decode(mounted.events[0]["awslogs"]["data"])))
    assert ("123456789012", "/bridge/notices", "notices", ["notices"]) == (
        told["owner"], told["logGroup"], told["logStream"], told["subscriptionFilters"],
    )  # fmt: skip
    assert [1_767_225_600_000] * 2 == [event["timestamp"] for event in told["logEvents"]]


async def test_a_log_group_of_the_route_and_what_is_packed_already():
    mounted = Mounted("cloudwatch-logs", format_options={"log_group": "/mine"})

    await mounted.accept(["one"])
    await mounted.accept(golden("aws-lambda-go/cloudwatch-logs-event.json"))

    told = json.loads(gzip.decompress(base64.b64decode(mounted.events[0]["awslogs"]["data"])))
    assert "/mine" == told["logGroup"]
    assert golden("aws-lambda-go/cloudwatch-logs-event.json").strip() == mounted.intake.stored[1].payload


# --- 5 SNS ------------------------------------------------------------------------------------------------------------


class Aws:
    """What our own requests to AWS find."""

    def __init__(self):
        self.asked = []
        self.failure = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, url):
        self.asked.append(url)
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return certificate_pem()


@pytest.fixture
def aws():
    return Aws()


@pytest.fixture
def topic():
    return Topic()


@pytest.fixture
def signed(topic):
    """A route that takes what SNS signs for the topic."""
    return sns_route(topics=[topic.arn])


def sns_route(*, topics=("*",), certificates=None, confirm=None):
    aws = confirm or Aws()
    verifier = Sns(secrets=(), now=ManualClock(time=NOW).stepped, fetch=certificates or Aws())
    mounted = Mounted("sns", verifier=verifier, format_options={"topics": topics, "confirm": aws})
    mounted.aws = aws
    return mounted


async def test_a_signed_notification_is_stored_as_lambda_gets_it(signed, topic):
    members = topic.notification("Hello world!", Subject="My First Message", Timestamp=STAMP)

    first = await signed.accept(body_of(members), topic.headers(members))

    (record,) = signed.events[0]["Records"]
    assert ("aws:sns", topic.subscription) == (record["EventSource"], record["EventSubscriptionArn"])
    assert ("Hello world!", "My First Message", STAMP) == tuple(
        record["Sns"][name] for name in ("Message", "Subject", "Timestamp")
    )
    assert first | {"duplicate": True} == await signed.accept(body_of(members), topic.headers(members))


async def test_a_subscription_is_confirmed_by_asking_aws(signed, topic):
    members = topic.confirmation(Timestamp=STAMP)

    status, _, body = await signed.send(body_of(members), topic.headers(members))

    assert (200, {"confirmed": True}) == (status, json.loads(body))
    assert [
        f"https://{HOST}/?Action=ConfirmSubscription&TopicArn={topic.arn}&Token={members['Token']}"
    ] == signed.aws.asked
    assert [] == signed.intake.stored


async def test_the_end_of_a_subscription_is_answered_and_asks_nobody(signed, topic):
    members = topic.confirmation("UnsubscribeConfirmation", Timestamp=STAMP)

    status, _, body = await signed.send(body_of(members), topic.headers(members))

    assert (200, {"unsubscribed": True}, []) == (status, json.loads(body), signed.aws.asked)


@pytest.mark.parametrize("kind", ["notification", "confirmation"])
async def test_another_topic_is_refused_though_sns_signed_it(signed, kind):
    members = getattr(Topic("other"), kind)(Timestamp=STAMP)

    assert "the topic is none of this route's" == await signed.refuse(403, body_of(members))
    assert [] == signed.aws.asked


@pytest.mark.parametrize(
    ("pattern", "is_taken"),
    [
        ("*", True), ("arn:aws:sns:us-west-2:123456789012:*", True), ("arn:aws:sns:us-west-2:123456789012:ord*", True),
        ("arn:aws:sns:us-west-2:123456789012:order", False), ("arn:aws:sns:us-west-2:999999999999:*", False),
    ],
)  # fmt: skip
async def test_topics_by_the_beginning_of_their_arn(topic, pattern, is_taken):
    mounted = sns_route(topics=[pattern])

    status, _, _ = await mounted.send(body_of(topic.notification(Timestamp=STAMP)))

    assert (202 if is_taken else 403) == status


async def test_a_forged_message_is_refused_with_a_challenge(signed, topic):
    members = topic.notification(Timestamp=STAMP) | {"Message": "other"}

    status, headers, line = await signed.send(body_of(members))

    assert (401, b"Signature") == (status, headers[b"www-authenticate"])
    assert {"error": "refused: the signature does not match"} == json.loads(line)


async def test_a_message_that_quotes_what_is_signed_does_not_pass_for_another_topic_s():
    """Lines that SNS signs can be part of a message: cut elsewhere, the same text would name another topic."""
    stranger, ours = Topic("stranger"), Topic("orders")
    quoted = f"MessageId\nm\nTimestamp\n{STAMP}\nTopicArn\n{ours.arn}"
    members = stranger.notification(f"evil\n{quoted}", Timestamp=STAMP)
    rest = f"MessageId\n{members['MessageId']}\nTimestamp\n{STAMP}\nTopicArn\n{stranger.arn}"
    forged = members | {"Message": "evil", "MessageId": "m", "TopicArn": f"{ours.arn}\n{rest}"}
    signed = "".join(f"{name}\n{forged[name]}\n" for name in ("Message", "MessageId", "Timestamp", "TopicArn", "Type"))
    assert signed == "".join(
        f"{name}\n{members[name]}\n" for name in ("Message", "MessageId", "Timestamp", "TopicArn", "Type")
    )

    for topics in ([ours.arn], [ours.arn + "*"], ["*"]):
        assert "TopicArn is " in await sns_route(topics=topics).refuse(401, body_of(forged))


async def test_a_forged_confirmation_asks_nobody(signed, topic):
    members = topic.confirmation(Timestamp=STAMP) | {"Token": "other"}

    assert "refused: the signature does not match" == await signed.refuse(401, body_of(members))
    assert [] == signed.aws.asked


@pytest.mark.parametrize(
    "url", ["https://evil.example/?Action=ConfirmSubscription", f"https://{HOST}/?Action=DeleteTopic"]
)
async def test_a_confirmation_elsewhere_is_refused_even_where_nobody_is_checked(aws, topic, url):
    mounted = Mounted("sns", format_options={"confirm": aws})
    members = topic.confirmation(Timestamp=STAMP, SubscribeURL=url)

    assert (await mounted.refuse(400, body_of(members))).startswith("SubscribeURL ")
    assert [] == aws.asked


@pytest.mark.parametrize(
    ("failure", "status", "text"),
    [
        (FetchFailed("answered 400", status=400), 400, "SNS did not take the confirmation"),
        (FetchFailed("answered 500", status=500), 503, "SNS cannot be asked to confirm; try again"),
        (FetchFailed("no connection"), 503, "SNS cannot be asked to confirm; try again"),
    ],
)
async def test_a_confirmation_that_fails_is_told_so_that_sns_asks_again_where_that_helps(
    signed, topic, failure, status, text
):
    signed.aws.failure = failure

    assert text == await signed.refuse(status, body_of(topic.confirmation(Timestamp=STAMP)))


async def test_a_certificate_that_cannot_be_had_is_no_refusal_for_good(topic):
    certificates = Aws()
    certificates.failure = FetchFailed("no connection")
    mounted = sns_route(certificates=certificates)

    status, headers, _ = await mounted.send(body_of(topic.notification(Timestamp=STAMP)))

    assert (503, b"1") == (status, headers[b"retry-after"])


async def test_confirmations_are_bounded_at_once(aws, topic):
    mounted = Mounted("sns", format_options={"confirm": aws})
    aws.gate.clear()
    asking = [asyncio.create_task(mounted.send(body_of(topic.confirmation()))) for _ in range(AT_ONCE_MAX)]
    while len(aws.asked) < AT_ONCE_MAX:
        await asyncio.sleep(0)

    assert "too many confirmations; try again" == await mounted.refuse(503, body_of(topic.confirmation()))

    aws.gate.set()
    assert [200] * AT_ONCE_MAX == [status for status, _, _ in await asyncio.gather(*asking)]


async def test_confirmations_are_bounded_by_the_minute(aws, topic):
    mounted = Mounted("sns", format_options={"confirm": aws})
    for _ in range(PER_MINUTE_MAX):
        await mounted.send(body_of(topic.confirmation()))

    await mounted.refuse(503, body_of(topic.confirmation()))
    mounted.clock.step(60)

    assert 200 == (await mounted.send(body_of(topic.confirmation())))[0]


class TestRawDelivery:
    @pytest.fixture
    def headers(self, topic):
        members = topic.notification()
        return topic.headers(members) | {"x-amz-sns-rawdelivery": "true", "authorization": "Basic dTpw"}

    async def test_with_a_secret_of_its_own_the_body_is_the_message(self, topic, headers):
        mounted = Mounted("sns", scheme="basic", secrets=["u:p"], format_options={"topics": [topic.arn]})

        first = await mounted.accept(b'{"id": 1}', headers)

        (record,) = mounted.events[0]["Records"]
        assert ('{"id": 1}', topic.arn, STAMP) == tuple(
            record["Sns"][name] for name in ("Message", "TopicArn", "Timestamp")
        )
        assert topic.subscription == record["EventSubscriptionArn"]
        assert first | {"duplicate": True} == await mounted.accept(b'{"id": 1}', headers)

    async def test_of_another_topic_it_is_refused(self, topic, headers):
        mounted = Mounted("sns", scheme="basic", secrets=["u:p"], format_options={"topics": [Topic("other").arn]})

        assert "the topic is none of this route's" == await mounted.refuse(403, b"x", headers)

    async def test_it_does_not_pass_for_signed(self, signed, headers):
        assert "raw message delivery is not signed" in await signed.refuse(401, b"x", headers)

    async def test_its_subscription_is_confirmed_too(self, aws, topic):
        mounted = Mounted(
            "sns", scheme="basic", secrets=["u:p"], format_options={"topics": [topic.arn], "confirm": aws}
        )
        members = topic.confirmation()

        status, _, _ = await mounted.send(body_of(members), topic.headers(members) | {"authorization": "Basic dTpw"})

        assert (200, 1) == (status, len(aws.asked))


# --- 6 bad input of every format --------------------------------------------------------------------------------------

BAD = {
    "empty": b"", "cut off": b'{"a":', "no UTF-8": b"\xff\xfe", "NUL": b"\x00", "BOM": b"\xef\xbb\xbf{}", "NaN": b'{"a":NaN}',
    "lone surrogate": b'{"a":"\\ud800"}', "null": b"null", "number": b"1e999", "list in list": b"[[]]", "deep": b"[" * 100_000,
    "deep and whole": b'{"a":' * 900 + b"1" + b"}" * 900, "XML": b"<a/>", "two": b"{}{}",
}  # fmt: skip
GOOD = {
    "cloudevents": (json.dumps(CLOUDEVENT).encode(), STRUCTURED),
    "s3": (golden("vendors/minio-put.json"), {}),
    "eventbridge": (golden("vendors/putevents-entry.json"), {}),
    "cloudwatch-logs": (b'["one"]', {}),
    "sns": (golden("vendors/sns-notification.json"), {}),
}


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
async def test_bad_input_is_one_clear_line_and_the_route_goes_on(format_, body):
    mounted = Mounted(format_)
    good, headers = GOOD[format_]

    text = await mounted.refuse(400, body, headers)

    assert 5 < len(text) < 200
    assert "id" in await mounted.accept(good, headers)


@pytest.mark.parametrize("format_", FORMATS)
async def test_an_event_above_the_limit_is_refused(format_):
    good, headers = GOOD[format_]
    mounted = Mounted(format_, async_payload_max_bytes=20)

    assert "the event has " in await mounted.refuse(413, good, headers)


@pytest.mark.parametrize("format_", FORMATS)
async def test_any_of_them_can_wait_for_the_function(format_):
    mounted = Mounted(format_, invocation_type=SYNC)
    mounted.invoker.answers["hello"] = lambda _, payload: json.dumps(sorted(json.loads(payload))).encode()
    good, headers = GOOD[format_]

    status, _, body = await mounted.send(good, headers)

    assert 200 == status
    assert isinstance(json.loads(body), list)

"""SNS: AWS's samples of posts become Lambda's event; what is signed; which URLs are trusted."""

import dataclasses
import json
from pathlib import Path

import pytest
from aws_lambda_powertools.utilities.data_classes import SNSEvent
from aws_lambda_powertools.utilities.parser.models import SnsModel
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.events.bodies import Unreadable
from bridge.events.sns import (
    SnsMessage,
    certificate_url,
    confirmation_url,
    is_raw_delivery,
    published_at,
    read_raw_sns,
    read_sns,
    sns_event,
    sns_host,
)

GOLDEN = Path(__file__).parent / "golden"
SUBSCRIPTION = "arn:aws:sns:us-west-2:123456789012:MyTopic:c9135db0-26c4-47ec-8998-413945fb5a96"
HEADERS = ((b"x-amz-sns-message-type", b"Notification"), (b"x-amz-sns-subscription-arn", SUBSCRIPTION.encode()))


def golden(name):
    return json.loads((GOLDEN / name).read_bytes())


def post(name, *, headers=HEADERS, **changed):
    members = golden(f"vendors/sns-{name}.json") | changed
    return read_sns(headers, json.dumps({key: value for key, value in members.items() if value is not ...}).encode())


def message_of(record):
    told = record["Sns"]
    return SnsMessage(
        topic_arn=told["TopicArn"],
        subscription_arn=record["EventSubscriptionArn"],
        message=told["Message"],
        message_id=told["MessageId"],
        timestamp=told["Timestamp"],
        subject=told["Subject"],
        attributes={name: (each["Type"], each["Value"]) for name, each in told["MessageAttributes"].items()},
        signature=told["Signature"],
        signing_cert_url=told["SigningCertUrl"],
        unsubscribe_url=told["UnsubscribeUrl"],
    )


def as_posted(record):
    """Return the post that Lambda's event would have been, had the topic posted it."""
    told = record["Sns"]
    other = {"SigningCertUrl": "SigningCertURL", "UnsubscribeUrl": "UnsubscribeURL"}
    members = {other.get(name, name): value for name, value in told.items()}
    headers = ((b"x-amz-sns-subscription-arn", record["EventSubscriptionArn"].encode()),)
    return read_sns(headers, json.dumps(members).encode())


def test_the_sample_of_sns_is_reproduced_member_by_member_in_its_order():
    sample = golden("powertools-python/snsEvent.json")

    made = sns_event([message_of(record) for record in sample["Records"]])

    assert json.dumps(sample) == json.dumps(json.loads(made))


@pytest.mark.parametrize(
    "name", ["powertools-python/snsEvent.json", "aws-lambda-go/sns-event.json", "sam-cli/sns-notification.json"]
)
def test_a_post_becomes_the_event_that_lambda_gets(name):
    sample = golden(name)

    assert sample == json.loads(sns_event([as_posted(record).message for record in sample["Records"]]))


def test_the_documented_notification_becomes_an_event():
    read = post("notification")

    (record,) = json.loads(sns_event([read.message]))["Records"]

    assert ("Notification", "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324") == (read.kind, read.message.message_id)
    assert ("aws:sns", "1.0", SUBSCRIPTION) == (
        record["EventSource"], record["EventVersion"], record["EventSubscriptionArn"],
    )  # fmt: skip
    assert golden("vendors/sns-notification.json") == {
        {"SigningCertUrl": "SigningCertURL", "UnsubscribeUrl": "UnsubscribeURL"}.get(name, name): value
        for name, value in record["Sns"].items()
        if name != "MessageAttributes"
    }
    assert {} == record["Sns"]["MessageAttributes"]


def test_powertools_reads_it():
    made = json.loads(sns_event([post("notification").message]))

    assert ("Hello world!", "My First Message") == (SNSEvent(made).sns_message, SNSEvent(made).record.sns.subject)
    assert "Hello world!" == SnsModel.model_validate(made).Records[0].Sns.Message


def test_without_a_subject_the_event_has_null():
    (record,) = json.loads(sns_event([post("notification", Subject=...).message]))["Records"]

    assert record["Sns"]["Subject"] is None


def test_without_its_header_the_subscription_is_read_from_the_url_that_ends_it():
    assert SUBSCRIPTION == post("notification", headers=()).message.subscription_arn
    assert "" == post("notification", headers=(), UnsubscribeURL="https://[").message.subscription_arn


def test_what_is_signed_of_a_notification():
    assert (
        b"Message\nHello world!\nMessageId\n22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324\nSubject\nMy First Message\n"
        b"Timestamp\n2012-05-02T00:54:06.655Z\nTopicArn\narn:aws:sns:us-west-2:123456789012:MyTopic\n"
        b"Type\nNotification\n" == post("notification").signed()
    )
    assert b"Subject" not in post("notification", Subject=...).signed()


@pytest.mark.parametrize("name", ["subscription-confirmation", "unsubscribe-confirmation"])
def test_what_is_signed_of_a_confirmation(name):
    sample = golden(f"vendors/sns-{name}.json")
    names = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")

    assert "".join(f"{each}\n{sample[each]}\n" for each in names).encode() == post(name).signed()


def test_a_post_is_written_as_it_was_read():
    for name in ("notification", "subscription-confirmation", "unsubscribe-confirmation"):
        sample = golden(f"vendors/sns-{name}.json")
        assert list(sample.items()) == list(post(name).members().items())


@pytest.mark.parametrize(
    ("name", "changed", "text"),
    [
        ("notification", {"Type": "Gossip"}, "Type is 'Gossip'; it must be one of Notification, "),
        ("notification", {"Type": ...}, "Type is missing"),
        ("notification", {"MessageId": ""}, "MessageId is empty"),
        ("notification", {"Message": ...}, "Message is missing"),
        ("notification", {"Message": {"a": 1}}, "Message is no text"),
        ("notification", {"Subject": 7}, "Subject is no text"),
        ("notification", {"MessageAttributes": []}, "MessageAttributes is no JSON object"),
        ("notification", {"MessageAttributes": {"a": {"Type": "String"}}}, "Value is missing"),
        ("subscription-confirmation", {"Token": ...}, "Token is missing"),
        ("subscription-confirmation", {"SubscribeURL": None}, "SubscribeURL is missing"),
    ],
)
def test_what_is_no_message_of_sns_is_said_in_one_line(name, changed, text):
    with pytest.raises(Unreadable) as refusal:
        post(name, **changed)

    assert str(refusal.value).startswith(text)
    assert "\n" not in str(refusal.value)


class TestRawDelivery:
    HEADERS = (
        (b"x-amz-sns-message-type", b"Notification"),
        (b"x-amz-sns-message-id", b"22b80b92"),
        (b"x-amz-sns-topic-arn", b"arn:aws:sns:us-west-2:123456789012:MyTopic"),
        (b"x-amz-sns-subscription-arn", SUBSCRIPTION.encode()),
        (b"x-amz-sns-rawdelivery", b"true"),
    )

    def test_the_body_is_the_message(self):
        message = read_raw_sns(self.HEADERS, b'{"id": 1}', timestamp="2020-01-01T00:00:00.000Z")

        event = json.loads(sns_event([message]))

        assert is_raw_delivery(self.HEADERS)
        assert not is_raw_delivery(HEADERS)
        assert '{"id": 1}' == SNSEvent(event).sns_message
        assert SUBSCRIPTION == event["Records"][0]["EventSubscriptionArn"]
        assert ("22b80b92", None, "", "") == tuple(
            event["Records"][0]["Sns"][name] for name in ("MessageId", "Subject", "Signature", "SigningCertUrl")
        )

    @pytest.mark.parametrize(
        ("headers", "body", "text"),
        [
            (HEADERS, b"\xff", "the message is not UTF-8"),
            (HEADERS[:1], b"", "header x-amz-sns-message-id is missing"),
            (HEADERS[:2], b"", "header x-amz-sns-topic-arn is missing"),
            (HEADERS + HEADERS, b"", "header x-amz-sns-message-id is given more than once"),
        ],
    )
    def test_what_it_lacks_is_said(self, headers, body, text):
        with pytest.raises(Unreadable, match=text):
            read_raw_sns(headers, body, timestamp="2020-01-01T00:00:00.000Z")


class TestTrustedUrls:
    @pytest.mark.parametrize(
        ("topic", "host"),
        [
            ("arn:aws:sns:us-west-2:123456789012:MyTopic", "sns.us-west-2.amazonaws.com"),
            ("arn:aws-cn:sns:cn-north-1:123456789012:t", "sns.cn-north-1.amazonaws.com.cn"),
            ("arn:aws-us-gov:sns:us-gov-east-1:123456789012:t", "sns.us-gov-east-1.amazonaws.com"),
        ],
    )
    def test_one_host_speaks_for_a_topic(self, topic, host):
        assert host == sns_host(topic)

    @pytest.mark.parametrize(
        "topic",
        [
            "", "MyTopic", "arn:aws:sqs:us-west-2:123456789012:q", "arn:aws:sns::123456789012:t",
            "arn:aws-mine:sns:us-west-2:123456789012:t", "arn:aws:sns:us-west-2.evil.example:123456789012:t",
        ],
    )  # fmt: skip
    def test_no_other_arn_has_a_host(self, topic):
        with pytest.raises(Unreadable, match="TopicArn is "):
            sns_host(topic)

    def test_the_documented_certificate_and_confirmation_are_trusted(self):
        sample = golden("vendors/sns-subscription-confirmation.json")

        read = post("subscription-confirmation")

        assert sample["SigningCertURL"] == certificate_url(read.message)
        assert sample["SubscribeURL"] == confirmation_url(read)

    @pytest.mark.parametrize(
        "url",
        [
            "", "x", "http://sns.us-west-2.amazonaws.com/a.pem", "https://sns.us-west-2.amazonaws.com/a.txt",
            "https://sns.us-west-2.amazonaws.com/", "https://sns.us-west-2.amazonaws.com/a/b.pem",
            "https://sns.us-west-2.amazonaws.com/..%2fa.pem", "https://sns.us-west-2.amazonaws.com/a.pem?x=1",
            "https://sns.us-west-2.amazonaws.com/a.pem#b", "https://sns.eu-west-1.amazonaws.com/a.pem",
            "https://sns.us-west-2.amazonaws.com.evil.example/a.pem", "https://evil.example/a.pem",
            "https://evil.example/sns.us-west-2.amazonaws.com/a.pem", "https://sns.us-west-2.amazonaws.com@evil.example/a.pem",
            "https://u:p@sns.us-west-2.amazonaws.com/a.pem", "https://sns.us-west-2.amazonaws.com:8443/a.pem",
            "https://sns.us-west-2.amazonaws.com\\@evil.example/a.pem", "https://sns.us-west-2.amazonaws.com/a.pem\n",
            "https://169.254.169.254/a.pem", "https://[::1]/a.pem", "https://[/a.pem", "file:///etc/a.pem",
            "https://sns.us-west-2.amazonaws.com./a.pem", "https://SNS.us-west-2.amazonaws.com.cn/a.pem",
            "https://sns.us-west-2.amazonaws.com/" + "a" * 2000 + ".pem", "https://bucket.s3.amazonaws.com/a.pem",
        ],
    )  # fmt: skip
    def test_no_other_certificate_is(self, url):
        message = dataclasses.replace(post("notification").message, signing_cert_url=url)

        with pytest.raises(Unreadable, match="SigningCertURL is "):
            certificate_url(message)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("https:", "http:"), ("us-west-2.amazonaws", "us-west-2.evil"), ("ConfirmSubscription", "DeleteTopic"),
            ("MyTopic&", "Other&"), ("Token=", "Token=0"), ("/?", "/x?"), ("&Token=", "&Token=1&Token="),
            ("&Token=", "&Action=DeleteTopic&Token="), ("?", "#"),
        ],
    )  # fmt: skip
    def test_no_other_confirmation_is(self, old, new):
        url = golden("vendors/sns-subscription-confirmation.json")["SubscribeURL"]
        assert old in url

        with pytest.raises(Unreadable, match="SubscribeURL "):
            confirmation_url(post("subscription-confirmation", SubscribeURL=url.replace(old, new)))

    def test_a_time(self):
        assert 1335920046.655 == published_at(post("notification").message)
        for text in ("", "yesterday", "2012-13-01T00:00:00Z", "1e9"):
            with pytest.raises(Unreadable, match="Timestamp is no time"):
                published_at(dataclasses.replace(post("notification").message, timestamp=text))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["Type", "MessageId", "TopicArn", "Message", "Timestamp", "Token", "SubscribeURL", "Subject",
                         "SigningCertURL", "UnsubscribeURL", "MessageAttributes"]), JSON,
    ) | JSON
)  # fmt: skip
def test_whatever_is_posted_is_read_or_refused_in_one_line(value):
    if isinstance(value, dict):
        value = golden("vendors/sns-subscription-confirmation.json") | value
    try:
        read = read_sns(HEADERS, json.dumps(value).encode("utf-8", "surrogatepass"))
        certificate_url(read.message)
        confirmation_url(read)
        published_at(read.message)
    except Unreadable as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 400
    else:
        json.loads(sns_event([read.message]))

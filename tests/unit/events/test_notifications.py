"""Events of SNS, S3 and EventBridge: AWS's samples reproduced, and read by Powertools."""

import datetime as dt
import json
from pathlib import Path

import pytest
from aws_lambda_powertools.utilities.data_classes import EventBridgeEvent, S3Event, SNSEvent

from bridge.events.notifications import (
    BusEvent,
    S3Change,
    SnsMessage,
    eventbridge_event,
    s3_event,
    sns_event,
)

GOLDEN = Path(__file__).parent / "golden"


def golden(name):
    return json.loads((GOLDEN / name).read_bytes())


def seconds(text):
    return dt.datetime.fromisoformat(text).timestamp()


def sns_message(record):
    told = record["Sns"]
    return SnsMessage(
        topic_arn=told["TopicArn"],
        subscription_arn=record["EventSubscriptionArn"],
        message=told["Message"],
        message_id=told["MessageId"],
        time_ms=round(seconds(told["Timestamp"]) * 1000),
        subject=told["Subject"],
        attributes={name: (each["Type"], each["Value"]) for name, each in told["MessageAttributes"].items()},
        signature=told["Signature"],
        signing_cert_url=told["SigningCertUrl"],
        unsubscribe_url=told["UnsubscribeUrl"],
    )


def s3_change(record):
    bucket, stored = record["s3"]["bucket"], record["s3"]["object"]
    return S3Change(
        bucket=bucket["name"],
        key=stored["key"],
        time_ms=round(seconds(record["eventTime"]) * 1000),
        region=record["awsRegion"],
        event_name=record["eventName"],
        size=stored.get("size", 0),
        etag=stored.get("eTag", ""),
        version_id=stored.get("versionId", ""),
        sequencer=stored["sequencer"],
        source_ip=record["requestParameters"]["sourceIPAddress"],
        principal_id=record["userIdentity"]["principalId"],
        owner_id=bucket["ownerIdentity"]["principalId"],
        configuration_id=record["s3"]["configurationId"],
        request_id=record["responseElements"]["x-amz-request-id"],
        host_id=record["responseElements"]["x-amz-id-2"],
    )


def bus_event(sample):
    return BusEvent(
        event_id=sample["id"],
        source=sample["source"],
        detail_type=sample["detail-type"],
        detail=sample["detail"],
        time=seconds(sample["time"]),
        region=sample["region"],
        account=sample["account"],
        resources=sample["resources"],
        replay_name=sample.get("replay-name", ""),
    )


def test_the_sample_of_sns_is_reproduced_member_by_member_in_its_order():
    sample = golden("powertools-python/snsEvent.json")

    made = sns_event([sns_message(record) for record in sample["Records"]])

    assert json.dumps(sample) == json.dumps(json.loads(made))


def test_another_sample_of_sns_is_reproduced():
    sample = golden("aws-lambda-go/sns-event.json")

    assert sample == json.loads(sns_event([sns_message(record) for record in sample["Records"]]))


@pytest.mark.parametrize("name", ["powertools-python/s3Event.json", "powertools-python/s3EventDeleteObject.json"])
def test_a_sample_of_s3_is_reproduced_member_by_member_in_its_order(name):
    sample = golden(name)

    made = s3_event([s3_change(record) for record in sample["Records"]])

    assert json.dumps(sample) == json.dumps(json.loads(made))


def test_an_object_with_versions():
    sample = golden("aws-lambda-go/s3-event.json")["Records"][0]

    (record,) = json.loads(s3_event([s3_change(sample)]))["Records"]

    assert (sample["s3"]["object"] | {"key": "Happy%2520Face.jpg"}) == record["s3"]["object"]


@pytest.mark.parametrize(
    ("key", "encoded"), [("a b/ü+&.txt", "a+b/%C3%BC%2B%26.txt"), ("orders/1-2_3.json", "orders/1-2_3.json")]
)
def test_a_key_is_encoded_as_s3_does(key, encoded):
    made = json.loads(s3_event([S3Change(bucket="b", key=key, time_ms=0, region="eu-west-1")]))

    assert encoded == made["Records"][0]["s3"]["object"]["key"]
    assert key == S3Event(made).object_key


@pytest.mark.parametrize(
    "name",
    ["powertools-python/eventBridgeEvent.json", "powertools-python/s3EventBridgeNotificationObjectCreatedEvent.json"],
)
def test_a_sample_of_eventbridge_is_reproduced_member_by_member_in_its_order(name):
    sample = golden(name)

    assert json.dumps(sample) == json.dumps(json.loads(eventbridge_event(bus_event(sample))))


def test_powertools_reads_them():
    sns = SNSEvent(json.loads(sns_event([sns_message(golden("powertools-python/snsEvent.json")["Records"][0])])))
    bus = golden("powertools-python/eventBridgeEvent.json")
    event = EventBridgeEvent(json.loads(eventbridge_event(bus_event(bus))))

    assert ("Hello from SNS!", "TestInvoke") == (sns.sns_message, sns.record.sns.subject)
    assert "TestString" == sns.record.sns.message_attributes["Test"].value
    assert (bus["detail-type"], bus["detail"]) == (event.detail_type, event.detail)
    assert "replay_archive" == event.replay_name

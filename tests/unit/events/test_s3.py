"""S3: AWS's samples of events reproduced, notifications as MinIO and AWS post them read."""

import datetime as dt
import json
from pathlib import Path

import pytest
from aws_lambda_powertools.utilities.data_classes import S3Event
from aws_lambda_powertools.utilities.parser.models import S3Model
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.events.bodies import Unreadable
from bridge.events.s3 import S3Change, minio_body, read_s3, s3_event

GOLDEN = Path(__file__).parent / "golden"
REGION = "eu-central-1"


def golden(name):
    return json.loads((GOLDEN / name).read_bytes())


def read(value):
    return read_s3(json.dumps(value).encode(), region=REGION)


def change_of(record):
    bucket, stored = record["s3"]["bucket"], record["s3"]["object"]
    return S3Change(
        bucket=bucket["name"],
        key=stored["key"],
        time_ms=round(dt.datetime.fromisoformat(record["eventTime"]).timestamp() * 1000),
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


@pytest.mark.parametrize("name", ["powertools-python/s3Event.json", "powertools-python/s3EventDeleteObject.json"])
def test_a_sample_of_s3_is_reproduced_member_by_member_in_its_order(name):
    sample = golden(name)

    made = s3_event([change_of(record) for record in sample["Records"]])

    assert json.dumps(sample) == json.dumps(json.loads(made))


def test_an_object_with_versions():
    sample = golden("aws-lambda-go/s3-event.json")["Records"][0]

    (record,) = json.loads(s3_event([change_of(sample)]))["Records"]

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
    [
        "powertools-python/s3Event.json", "powertools-python/s3EventDeleteObject.json", "aws-lambda-go/s3-event.json",
        "sam-cli/s3-put.json", "sam-cli/s3-delete.json",
    ],
)  # fmt: skip
def test_what_aws_posts_is_kept_as_it_is(name):
    sample = golden(name)

    assert sample == json.loads(read(sample).payload)


class TestMinio:
    def test_a_stored_object(self):
        (record,) = json.loads(read(golden("vendors/minio-put.json")).payload)["Records"]

        assert ("2.1", "aws:s3", "ObjectCreated:Put", REGION) == (
            record["eventVersion"], record["eventSource"], record["eventName"], record["awsRegion"],
        )  # fmt: skip
        assert {
            "key": "2024/my+report%2Bfinal+%C3%BC.md",
            "size": 5,
            "eTag": "d8e8fca2dc0f896fd7cb4cb0031ba249",
            "contentType": "text/markdown",
            "userMetadata": {"content-type": "text/markdown"},
            "sequencer": "17A9AB4FA93B35D8",
        } == record["s3"]["object"]

    def test_a_removed_object_has_neither_size_nor_etag(self):
        (record,) = json.loads(read(golden("vendors/minio-delete.json")).payload)["Records"]

        assert "ObjectRemoved:Delete" == record["eventName"]
        assert {"key": "cmd.md", "versionId": "1", "sequencer": "17D49DAFEEA6E6C4"} == record["s3"]["object"]

    def test_its_numbers_are_kept_as_it_wrote_them(self):
        body = (
            (GOLDEN / "vendors/minio-put.json")
            .read_bytes()
            .replace(b'"size": 5', b'"size": 5, "x": 123456789012345678901.50')
        )

        assert b'"size":5,"x":123456789012345678901.50' in read_s3(body, region=REGION).payload

    def test_powertools_reads_it(self):
        event = json.loads(read(golden("vendors/minio-put.json")).payload)

        assert ("uploads", "2024/my report+final ü.md") == (S3Event(event).bucket_name, S3Event(event).object_key)
        model = S3Model.model_validate(event).Records[0]
        assert ("ObjectCreated:Put", 5) == (model.eventName, model.s3.object.size)
        removed = json.loads(read(golden("vendors/minio-delete.json")).payload)
        assert S3Model.model_validate(removed).Records[0].s3.object.size is None

    def test_a_region_that_it_has_stays(self):
        value = golden("vendors/minio-put.json")
        value["Records"][0]["awsRegion"] = "west-wing"

        assert "west-wing" == json.loads(read(value).payload)["Records"][0]["awsRegion"]

    def test_what_generate_event_prints_as_sent_is_read(self):
        change = S3Change(bucket="b", key="a b/ü.txt", time_ms=0, region="eu-west-1", sequencer="1")

        assert json.loads(s3_event([change])) == json.loads(read_s3(minio_body(change), region=REGION).payload)


def test_a_change_sent_twice_has_one_delivery_id_and_another_change_another():
    put, removed = golden("vendors/minio-put.json"), golden("vendors/minio-delete.json")
    again = json.loads(json.dumps(put))
    again["Records"][0]["s3"]["object"]["sequencer"] = "17A9AB4FA93B35D9"

    assert read(put).delivery_id == read(put).delivery_id
    assert 3 == len({read(each).delivery_id for each in (put, removed, again)})


def test_without_a_sequencer_there_is_no_delivery_id():
    value = golden("vendors/minio-put.json")
    del value["Records"][0]["s3"]["object"]["sequencer"]

    assert "" == read(value).delivery_id


def test_the_test_event_is_no_event():
    assert read(golden("vendors/s3-test-event.json")) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([], "the body is no JSON object"),
        ({}, "no notification of a bucket: neither Records nor Event s3:TestEvent"),
        ({"Records": {}}, "Records is no list"),
        ({"Records": []}, "Records is empty"),
        ({"Records": [1]}, "record 0: it is no JSON object"),
        ({"Records": [{"s3": {}}]}, "record 0: eventName is missing"),
        ({"Records": [{"eventName": "a", "s3": {}}]}, "record 0: s3.bucket is no JSON object"),
        (
            {"Records": [{"eventName": "a", "s3": {"bucket": {"name": "b"}, "object": {"key": 5}}}]},
            "record 0: key is no",
        ),
    ],
)
def test_what_is_no_notification_is_said_in_one_line(value, text):
    with pytest.raises(Unreadable) as refusal:
        read(value)

    assert str(refusal.value).startswith(text)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"Records":NaN}', b"[" * 100_000, b'{"a":' * 250 + b"1" + b"}" * 250]
)
def test_what_is_no_json_is_said_in_one_line(body):
    with pytest.raises(Unreadable, match="^the body is "):
        read_s3(body, region=REGION)


@settings(max_examples=150, deadline=None)
@given(st.text(min_size=1), st.text(min_size=1), st.sampled_from(["ObjectCreated:Put", "ObjectRemoved:Delete"]))
def test_any_key_comes_back_through_powertools(bucket, key, name):
    change = S3Change(bucket=bucket, key=key, time_ms=0, region="eu-west-1", event_name=name, sequencer="1")

    for body in (minio_body(change), s3_event([change])):
        assert key == S3Event(json.loads(read_s3(body, region=REGION).payload)).object_key


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_record_with_any_member_of_any_kind_is_read_or_refused_in_one_line(data):
    value = golden("vendors/minio-put.json")
    record = value["Records"][0]
    place = data.draw(st.sampled_from([value, record, record["s3"], record["s3"]["bucket"], record["s3"]["object"]]))
    name = data.draw(st.sampled_from(sorted(place)))
    place[name] = data.draw(st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.just({}))
    try:
        read(value)
    except Unreadable as error:
        assert "\n" not in str(error)

"""`bridge generate-event`: every field chosen, every mistake one line."""

import base64
import hashlib
import json

import pytest
from aws_lambda_powertools.utilities.data_classes import (
    ALBEvent,
    APIGatewayProxyEvent,
    APIGatewayProxyEventV2,
    CloudWatchLogsEvent,
    DynamoDBStreamEvent,
    EventBridgeEvent,
    KafkaEvent,
    KinesisStreamEvent,
    S3Event,
    SNSEvent,
    SQSEvent,
)
from aws_lambda_powertools.utilities.parser import models
from aws_lambda_powertools.utilities.parser.models import (
    AlbModel,
    APIGatewayProxyEventModel,
    APIGatewayProxyEventV2Model,
)

from bridge.events.cloudwatch_logs import LogDefaults, read_logs
from bridge.events.cognito import check_trigger
from bridge.events.eventbridge import BusDefaults, read_eventbridge
from bridge.events.generate_http import TRIGGERS
from bridge.events.s3 import read_s3
from bridge.events.sns import read_sns, sns_event

MODELS = {
    "PreSignUp": models.CognitoPreSignupTriggerModel,
    "PostConfirmation": models.CognitoPostConfirmationTriggerModel,
    "PreAuthentication": models.CognitoPreAuthenticationTriggerModel,
    "PostAuthentication": models.CognitoPostAuthenticationTriggerModel,
    "CustomMessage": models.CognitoCustomMessageTriggerModel,
    "TokenGeneration": models.CognitoPreTokenGenerationTriggerModelV1,
    "DefineAuthChallenge": models.CognitoDefineAuthChallengeTriggerModel,
    "CreateAuthChallenge": models.CognitoCreateAuthChallengeTriggerModel,
    "VerifyAuthChallengeResponse": models.CognitoVerifyAuthChallengeTriggerModel,
}


@pytest.fixture
def event(alone):
    """Return `event(*args)`: what is printed, parsed."""

    def generate(*args, **options):
        found = alone("generate-event", *args, **options)
        assert (found.code, found.err) == (0, "")
        return json.loads(found.out)

    return generate


@pytest.fixture
def lines(alone):
    """Return `lines(*args)`: what is printed with --records, parsed line by line."""
    return lambda *args: [json.loads(line) for line in alone("generate-event", *args, "--records").out.splitlines()]


class TestKinesis:
    def test_every_field(self, event):
        made = event(
            "kinesis", "--stream", "clicks", "--shard", "6", "--partition-key", "ada", "--data", "hello",
            "--sequence-number", "495", "--timestamp", "1545084650987", "--encrypted", "--identity-arn", "arn:role",
            "--region", "eu-west-1", "--account", "123456789012", "--count", "2",
        )  # fmt: skip

        assert made["Records"][0] == {
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": "ada",
                "sequenceNumber": "495",
                "data": "aGVsbG8=",
                "approximateArrivalTimestamp": 1545084650.987,
                "encryptionType": "KMS",
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": "shardId-000000000006:495",
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": "arn:role",
            "awsRegion": "eu-west-1",
            "eventSourceARN": "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks",
        }
        assert "496" == made["Records"][1]["kinesis"]["sequenceNumber"]

    def test_an_arn_wins(self, event):
        arn = "arn:aws-cn:kinesis:cn-north-1:123456789012:stream/x"
        (record,) = event("kinesis", "--arn", arn)["Records"]

        assert (arn, "cn-north-1") == (record["eventSourceARN"], record["awsRegion"])

    def test_data_that_is_no_text(self, event, alone, tmp_path):
        (tmp_path / "data").write_bytes(b"\xff\x00")
        data = f"@{tmp_path / 'data'}"

        assert "/wA=" == event("kinesis", "--data", data)["Records"][0]["kinesis"]["data"]
        found = alone("generate-event", "kinesis", "--data", data, "--records")
        assert (2, 1) == (found.code, found.err.count("\n"))
        assert "is not UTF-8: a line of JSON cannot hold it" in found.err

    def test_records_for_put(self, lines):
        assert [{"key": "1", "value": {"id": 1}, "headers": {}}] * 2 == lines("kinesis", "--count", "2")


class TestDynamoDb:
    def test_every_field(self, event):
        made = event(
            "dynamodb", "--table", "carts", "--event-name", "MODIFY", "--new", '{"pk":"a","sk":1,"n":2.50}',
            "--old", '{"pk":"a","sk":1,"n":1}', "--key", "pk,sk", "--event-id", "e1", "--sequence-number", "117",
            "--timestamp", "1480642020000", "--region", "eu-west-1", "--account", "123456789012", "--count", "2",
        )  # fmt: skip

        first, second = made["Records"]
        assert first == {
            "eventID": "e1",
            "eventName": "MODIFY",
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": "eu-west-1",
            "dynamodb": {
                "ApproximateCreationDateTime": 1480642020,
                "Keys": {"pk": {"S": "a"}, "sk": {"N": "1"}},
                "NewImage": {"pk": {"S": "a"}, "sk": {"N": "1"}, "n": {"N": "2.50"}},
                "OldImage": {"pk": {"S": "a"}, "sk": {"N": "1"}, "n": {"N": "1"}},
                "SequenceNumber": "117",
                "SizeBytes": 24,
                "StreamViewType": "NEW_AND_OLD_IMAGES",
            },
            "eventSourceARN": "arn:aws:dynamodb:eu-west-1:123456789012:table/carts/stream/2020-01-01T00:00:00.000",
        }
        assert ("118", 32) == (second["dynamodb"]["SequenceNumber"], len(second["eventID"]))

    @pytest.mark.parametrize(
        ("options", "name", "images"),
        [
            ((), "INSERT", {"NewImage"}),
            (("--old", '{"id":1}'), "REMOVE", {"OldImage"}),
            (("--old", '{"id":1}', "--new", '{"id":1}'), "MODIFY", {"NewImage", "OldImage"}),
            (("--event-name", "MODIFY"), "MODIFY", {"NewImage", "OldImage"}),
            (("--event-name", "REMOVE"), "REMOVE", {"OldImage"}),
            (("--event-name", "MODIFY", "--view", "NEW_IMAGE"), "MODIFY", {"NewImage"}),
            (("--event-name", "MODIFY", "--view", "OLD_IMAGE"), "MODIFY", {"OldImage"}),
            (("--view", "KEYS_ONLY"), "INSERT", set()),
        ],
    )
    def test_what_is_told_of_the_item(self, event, options, name, images):
        (record,) = event("dynamodb", *options)["Records"]

        assert name == record["eventName"]
        assert images == {"NewImage", "OldImage"} & set(record["dynamodb"])
        assert {"id": {"N": "1"}} == record["dynamodb"]["Keys"]

    def test_a_time_to_live_that_has_ended(self, event):
        (record,) = event("dynamodb", "--ttl")["Records"]

        assert {"type": "Service", "principalId": "dynamodb.amazonaws.com"} == record["userIdentity"]
        assert "REMOVE" == record["eventName"]

    def test_items_of_all_types(self, event):
        image = {"id": {"B": "AAE="}, "s": {"SS": ["a"]}}
        (record,) = event("dynamodb", "--typed", "--new", json.dumps(image))["Records"]

        assert (image, {"id": {"B": "AAE="}}) == (record["dynamodb"]["NewImage"], record["dynamodb"]["Keys"])

    def test_records_for_put(self, lines):
        first, second = lines("dynamodb", "--count", "2")

        assert first["dynamodb"]["SequenceNumber"] < second["dynamodb"]["SequenceNumber"]
        assert "eventSourceARN" not in first


class TestSqs:
    def test_every_field(self, event):
        made = event(
            "sqs", "--queue", "jobs.fifo", "--body", "hello", "--attribute", "WeeksOn:Number=6", "--attribute", "b:Binary=hi",
            "--attribute", "Author=John Grisham", "--message-id", "m1", "--receipt-handle", "h", "--receive-count", "3",
            "--sender-id", "AIDA", "--group", "g", "--deduplication-id", "d", "--sequence-number", "7",
            "--dead-letter-source", "arn:dlq", "--timestamp", "1520621625029", "--region", "eu-west-1",
            "--account", "123456789012", "--count", "2",
        )  # fmt: skip

        first, second = made["Records"]
        text = {"stringListValues": [], "binaryListValues": []}
        assert 32 == len(first.pop("md5OfMessageAttributes"))
        assert first == {
            "messageId": "m1",
            "receiptHandle": "h",
            "body": "hello",
            "attributes": {
                "ApproximateReceiveCount": "3",
                "SentTimestamp": "1520621625029",
                "SenderId": "AIDA",
                "ApproximateFirstReceiveTimestamp": "1520621625031",
                "SequenceNumber": "7",
                "MessageGroupId": "g",
                "MessageDeduplicationId": "d",
                "DeadLetterQueueSourceArn": "arn:dlq",
            },
            "messageAttributes": {
                "WeeksOn": {"stringValue": "6", **text, "dataType": "Number"},
                "b": {"binaryValue": "aGk=", **text, "dataType": "Binary"},
                "Author": {"stringValue": "John Grisham", **text, "dataType": "String"},
            },
            "md5OfBody": hashlib.md5(b"hello").hexdigest(),  # noqa: S324 - SQS's
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:jobs.fifo",
            "awsRegion": "eu-west-1",
        }
        assert first["messageId"] != second["messageId"]

    def test_the_sum_of_attributes_is_that_of_the_service(self, event):
        """The sum that AWS sent with these attributes (captured-from-aws/sqs-event-with-message-attributes.json)."""
        (record,) = event(
            "sqs", "--attribute", "WeeksOn:Number=6", "--attribute", "Author=John Grisham",
            "--attribute", "Title=The Whistler",
        )["Records"]  # fmt: skip

        assert "d25a6aea97eb8f585bfa92d314504a92" == record["md5OfMessageAttributes"]

    def test_a_standard_queue_has_no_groups(self, event):
        (record,) = event("sqs")["Records"]

        assert {"ApproximateReceiveCount", "SentTimestamp", "SenderId", "ApproximateFirstReceiveTimestamp"} == set(
            record["attributes"]
        )
        assert "md5OfMessageAttributes" not in record

    def test_records_for_put(self, lines):
        assert [{"key": "1", "value": {"id": 1}, "headers": {"a": "b"}}] == lines(
            "sqs", "--queue", "q.fifo", "--attribute", "a=b"
        )


def test_sns(event):
    made = event(
        "sns", "--topic", "t", "--message", "hello", "--subject", "s", "--attribute", "a=b", "--message-id", "m",
        "--timestamp", "1546433107000", "--region", "eu-west-1", "--account", "123456789012",
    )  # fmt: skip

    record = SNSEvent(made).record
    assert ("hello", "s", "m") == (record.sns.message, record.sns.subject, record.sns.message_id)
    assert ("2019-01-02T12:45:07.000Z", "arn:aws:sns:eu-west-1:123456789012:t") == (
        record.sns.timestamp, record.sns.topic_arn
    )  # fmt: skip
    assert ("String", "b") == (record.sns.message_attributes["a"].get_type, record.sns.message_attributes["a"].value)
    assert record.event_subscription_arn.startswith("arn:aws:sns:eu-west-1:123456789012:t:")


def test_s3(event):
    made = event(
        "s3", "--bucket", "b", "--key", "a b.txt", "--size", "5", "--etag", "e", "--version-id", "v", "--sequencer", "0A",
        "--configuration-id", "c", "--source-ip", "10.0.0.1", "--timestamp", "1567539447192", "--region", "eu-west-1",
    )  # fmt: skip

    record = S3Event(made).record
    stored = record.s3.get_object
    assert ("b", "a+b.txt", 5, "e", "v") == (
        record.s3.bucket.name, stored.key, stored.size, stored.etag, stored.version_id
    )  # fmt: skip
    assert ("2019-09-03T19:37:27.192Z", "eu-west-1") == (record.event_time, record.aws_region)
    removed = event("s3", "--event-name", "ObjectRemoved:Delete")["Records"][0]
    assert {"key", "sequencer"} == set(removed["s3"]["object"])


def test_eventbridge(event):
    made = event(
        "eventbridge", "--source", "com.example", "--detail-type", "T", "--detail", '{"a": 1}', "--resource", "arn:a",
        "--id", "i", "--timestamp", "1513968228000", "--replay-name", "r", "--region", "eu-west-1", "--account", "1",
    )  # fmt: skip

    assert made == {
        "version": "0", "id": "i", "detail-type": "T", "source": "com.example", "account": "1",
        "time": "2017-12-22T18:43:48Z", "region": "eu-west-1", "resources": ["arn:a"], "detail": {"a": 1},
        "replay-name": "r",
    }  # fmt: skip
    assert {"a": 1} == EventBridgeEvent(made).detail


@pytest.mark.parametrize(("options", "detail"), [((), '"detail":{"a":1.10}'), (("--as-sent",), '{\\"a\\":1.10}')])
def test_numbers_of_a_detail_are_those_that_were_given(alone, options, detail):
    assert detail in alone("generate-event", "eventbridge", "--detail", '{"a": 1.10}', *options).out


@pytest.mark.parametrize(
    ("kind", "reader"),
    [("kafka", KafkaEvent), ("kinesis", KinesisStreamEvent), ("dynamodb", DynamoDBStreamEvent), ("sqs", SQSEvent)],
)
def test_powertools_reads_what_is_made_without_options(event, kind, reader):
    assert 1 == len(list(reader(event(kind)).records))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("kinesis", "--arn", "x"), "must be arn:aws:"),
        (("kinesis", "--sequence-number", "-1"), "--sequence-number"),
        (("kinesis", "--timestamp", "soon"), "neither epoch milliseconds nor a time"),
        (("kinesis", "--partition-key", "\udcff"), "--partition-key is not UTF-8"),
        (("kinesis", "--count", "10001"), "--count"),
        (("dynamodb", "--new", "[1]"), "--new: is no JSON object"),
        (("dynamodb", "--new", "{"), "--new: is not JSON"),
        (("dynamodb", "--new", '{"a":1}'), "--key: the item has no id"),
        (("dynamodb", "--typed", "--new", '{"id":1}'), 'with --typed id is like {"S": "a"}'),
        (("dynamodb", "--event-name", "INSERT", "--old", "{}"), "an INSERT has no --old"),
        (("dynamodb", "--event-name", "REMOVE", "--new", "{}"), "a REMOVE has no --new"),
        (("dynamodb", "--event-name", "INSERT", "--ttl"), "--ttl is of a REMOVE"),
        (("sqs", "--group", "g"), "--group is of a FIFO queue"),
        (("sqs", "--attribute", "a"), "is not NAME=VALUE"),
        (("sqs", "--attribute", "a:Text=b"), "is not NAME=VALUE or NAME:TYPE=VALUE"),
        (("eventbridge", "--detail", "5"), "--detail: is no JSON object"),
        (("eventbridge", "--detail", "x"), "--detail: is not JSON"),
        (("s3", "--event-name", "x"), "--event-name"),
        (("cloudevents", "--data", "x"), "--data: the data is not the JSON that content type 'application/json' says"),
        (("cloudevents", "--extension", "x"), "is not NAME=VALUE"),
        (("cloudwatch-logs", "--message", "\udcff"), "--message is not UTF-8"),
    ],
)
def test_a_mistake_is_told_in_words(alone, arguments, message):
    found = alone("generate-event", *arguments)

    assert 2 == found.code
    assert message in found.err


def test_bodies_come_from_files_and_standard_input(event, tmp_path):
    (tmp_path / "body").write_text("from a file")

    assert "from a file" == event("sqs", "--body", f"@{tmp_path / 'body'}")["Records"][0]["body"]
    data = event("kinesis", "--data", "-", stdin="from a pipe")["Records"][0]["kinesis"]["data"]
    assert b"from a pipe" == base64.b64decode(data)


class TestCloudWatchLogs:
    def test_every_field(self, event):
        made = event(
            "cloudwatch-logs", "--log-group", "g", "--log-stream", "s", "--message", "one", "--message", "two",
            "--filter-name", "f", "--timestamp", "7", "--account", "123456789012", "--count", "2",
        )  # fmt: skip

        told = CloudWatchLogsEvent(made).parse_logs_data()
        assert ("123456789012", "g", "s", ["f"]) == (
            told.owner, told.log_group, told.log_stream, told.subscription_filters,
        )  # fmt: skip
        assert [("one", 7), ("two", 7)] * 2 == [(each.message, each.timestamp) for each in told.log_events]
        assert 4 == len({each.get_id for each in told.log_events})


class TestCloudEvents:
    def test_every_field(self, event):
        made = event(
            "cloudevents", "--source", "/here", "--type", "t", "--data", "<a/>", "--content-type", "text/xml",
            "--subject", "s", "--extension", "mine=1", "--id", "A1", "--timestamp", "0",
        )  # fmt: skip

        assert made == {
            "specversion": "1.0", "id": "A1", "source": "/here", "type": "t", "time": "1970-01-01T00:00:00.000Z",
            "subject": "s", "mine": "1", "datacontenttype": "text/xml", "data": "<a/>",
        }  # fmt: skip

    def test_bytes(self, event, tmp_path):
        (tmp_path / "image").write_bytes(b"\x00\xff")

        made = event("cloudevents", "--data", f"@{tmp_path / 'image'}", "--content-type", "image/png")

        assert b"\x00\xff" == base64.b64decode(made["data_base64"])


class TestAsSent:
    """What is printed with --as-sent becomes, at a route of that format, the event that is printed without."""

    def test_sns(self, event):
        options = ("sns", "--message-id", "m", "--timestamp", "0", "--subject", "s", "--attribute", "a=b")
        post = read_sns((), json.dumps(event(*options, "--as-sent")).encode())

        assert event(*options) == json.loads(sns_event([post.message]))

    def test_s3(self, event):
        options = ("s3", "--key", "a b/ü.txt", "--timestamp", "0", "--version-id", "v")
        body = json.dumps(event(*options, "--as-sent")).encode()

        assert event(*options) == json.loads(read_s3(body, region="").payload)

    def test_eventbridge(self, event):
        options = ("eventbridge", "--id", "1", "--timestamp", "0", "--resource", "r")
        defaults = BusDefaults(region="us-east-1", account="000000000000")
        (read,) = read_eventbridge(json.dumps(event(*options, "--as-sent")).encode(), defaults=defaults, received_at=9)

        assert event(*options) == json.loads(read.payload) | {"id": "1"}

    def test_cloudwatch_logs(self, event):
        options = ("cloudwatch-logs", "--timestamp", "0")
        defaults = LogDefaults(owner="", group="", stream="", subscription="")
        body = json.dumps(event(*options, "--as-sent")).encode()

        assert event(*options) == json.loads(read_logs(body, defaults=defaults, received_at=9).payload)

    def test_cloudevents(self, event):
        options = ("cloudevents", "--timestamp", "0", "--id", "1")

        assert event(*options) == event(*options, "--as-sent")

    @pytest.mark.parametrize("kind", ["sns", "s3"])
    def test_several_are_lines(self, alone, kind):
        lines = alone("generate-event", kind, "--count", "3", "--as-sent").out.splitlines()

        assert 3 == len([json.loads(line) for line in lines])


class TestHttp:
    FIELDS = (
        "--method", "put", "--path", "/a%20b", "--body", '{"id": 7}', "--header", "X-Id=1", "--header", "x-id=2",
        "--query", "q=a b", "--query", "q=c", "--source-ip", "203.0.113.5", "--timestamp", "1583348638390",
        "--request-id", "deef4878-7910-41e6-8f14-25afc3e9ae33",
    )  # fmt: skip

    def test_apigateway_v2_is_what_webhook_prints(self, event):
        assert event("apigateway-v2", *self.FIELDS) == event("webhook", *self.FIELDS)
        made = event("apigateway-v2", *self.FIELDS)
        APIGatewayProxyEventV2Model.model_validate(made)
        assert APIGatewayProxyEventV2(made).json_body == {"id": 7}

    def test_apigateway_v1(self, event):
        made = event("apigateway-v1", *self.FIELDS, "--account", "123456789012", "--region", "eu-west-1")

        assert (made["httpMethod"], made["path"]) == ("PUT", "/a%20b")
        assert made["multiValueHeaders"]["X-Id"] == ["1", "2"]
        assert made["multiValueQueryStringParameters"] == {"q": ["a b", "c"]}
        context = APIGatewayProxyEvent(made).request_context
        assert (context.account_id, context.domain_name) == (
            "123456789012",
            "webhook.execute-api.eu-west-1.amazonaws.com",
        )
        assert (context.identity.source_ip, context.request_time_epoch) == ("203.0.113.5", 1583348638390)
        assert context.request_id == "deef4878-7910-41e6-8f14-25afc3e9ae33"
        APIGatewayProxyEventModel.model_validate(made)
        assert event("apigateway-v1", "--body", "P", "--binary-media-type", "text/*")["body"] == "UA=="
        assert event("apigateway-v1", "--method", "GET")["body"] is None

    def test_alb(self, event):
        made = event("alb", *self.FIELDS)

        assert made["queryStringParameters"] == {"q": "c"}
        assert made["headers"]["x-id"] == "2"
        assert made["headers"]["x-forwarded-for"] == "203.0.113.5"
        assert ALBEvent(made).json_body == {"id": 7}
        AlbModel.model_validate(made)
        many = event("alb", *self.FIELDS, "--multi-value-headers")
        assert many["multiValueQueryStringParameters"] == {"q": ["a+b", "c"]}
        assert many["multiValueHeaders"]["x-id"] == ["1", "2"]

    @pytest.mark.parametrize("trigger", TRIGGERS)
    def test_cognito(self, event, trigger):
        made = event(
            "cognito", "--trigger", trigger, "--user-pool-id", "eu-west-1_a", "--user-name", "ada",
            "--client-id", "app", "--attribute", "email=ada@example.com",
        )  # fmt: skip

        check_trigger(json.dumps(made).encode())
        assert (made["triggerSource"], made["region"], made["userName"]) == (trigger, "eu-west-1", "ada")
        assert made["request"]["userAttributes"] == {"email": "ada@example.com"}
        assert made["callerContext"]["clientId"] == "app"
        kind = trigger.partition("_")[0]
        made["triggerSource"] = next(each for each in TRIGGERS if each.startswith(kind))  # each model knows one
        if kind == "VerifyAuthChallengeResponse":
            made["response"]["answerCorrect"] = True  # null until a handler says so, which the model does not know
        MODELS[kind].model_validate(made)

    def test_alexa(self, event):
        launch = event("alexa", "--timestamp", "1583348638390", "--request-id", "r")
        assert launch["request"] == {
            "type": "LaunchRequest", "requestId": "amzn1.echo-api.request.r", "timestamp": "2020-03-04T19:03:58Z",
            "locale": "en-US",
        }  # fmt: skip
        intent = event("alexa", "--intent", "Play", "--slot", "song=Yesterday", "--locale", "de-DE")["request"]
        assert intent["intent"]["slots"]["song"]["value"] == "Yesterday"
        assert (intent["type"], intent["locale"]) == ("IntentRequest", "de-DE")

    @pytest.mark.parametrize(
        "args",
        [
            ("apigateway-v1", "--path", "x"),
            ("alb", "--query", "nonsense"),
            ("apigateway-v2", *("--query", "a=b") * 300),
            ("apigateway-v1", "--timestamp", "9" * 20),
            ("alexa", "--timestamp", "9" * 20),
            ("alexa", "--slot", "a=b"),
            ("cognito", "--trigger", "PreSignUp"),
        ],
    )
    def test_a_mistake_is_one_line(self, alone, args):
        found = alone("generate-event", *args)
        assert found.code == 2
        assert found.out == ""
        assert "Traceback" not in found.err
        assert found.err.splitlines()[-1].startswith(("Error: ", "bridge"))

    def test_known_words_are_completed(self):
        from click.shell_completion import ShellComplete

        from bridge.cli.main import cli

        completion = ShellComplete(cli, {"obj": None}, "bridge", "_BRIDGE_COMPLETE")

        def completed(*args, typed=""):
            return [item.value for item in completion.get_completions(["generate-event", *args], typed)]

        assert {"apigateway-v1", "apigateway-v2", "alb", "cognito", "alexa"} <= set(completed())
        assert completed("alb", "--method", typed="p") == ["POST", "PUT", "PATCH"]
        assert completed("cognito", "--trigger", typed="PostC") == [
            "PostConfirmation_ConfirmSignUp",
            "PostConfirmation_ConfirmForgotPassword",
        ]

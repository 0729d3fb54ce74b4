"""ARNs, and sources that are named by one or by a URL."""

import pytest

from bridge.core.arn import parse_arn
from bridge.core.mapping import parse_source

STREAM = "arn:aws:kinesis:eu-central-1:123456789012:stream/orders"
TABLE = "arn:aws:dynamodb:us-gov-west-1:123456789012:table/Orders/stream/2026-01-31T08:00:00.000"
QUEUE = "arn:aws-cn:sqs:cn-north-1:123456789012:orders.fifo"
FUNCTION = "arn:aws:lambda:eu-central-1:123456789012:function:billing:live"
BUCKET = "arn:aws:s3:::bucket"


@pytest.mark.parametrize("written", [STREAM, TABLE, QUEUE, FUNCTION, BUCKET])
def test_an_arn_is_given_back_as_it_was_written(written):
    assert written == str(parse_arn(written))


def test_its_parts():
    arn = parse_arn(FUNCTION)

    assert ("aws", "lambda", "eu-central-1", "123456789012") == (arn.partition, arn.service, arn.region, arn.account)
    assert "function:billing:live" == arn.resource


@pytest.mark.parametrize(
    "written",
    ["", "arn", "arn:aws:sqs:eu-central-1:1234:q", "arn:x:sqs:eu-central-1:123456789012:q", "arn:aws:sqs:mars:123456789012:q",
     "arn:aws:sqs:eu-central-1:123456789012:", "arn:aws:sqs:eu-central-1:123456789012:a b", "urn:aws:sqs:::q"],
)  # fmt: skip
def test_what_is_none(written):
    with pytest.raises(ValueError):
        parse_arn(written)


@pytest.mark.parametrize(
    ("written", "kind", "connection", "name", "arn"),
    [
        ("kinesis://main/orders.v1", "kinesis", "main", "orders.v1", ""),
        ("dynamodb://main/Orders", "dynamodb", "main", "Orders", ""),
        ("sqs://main/orders.fifo", "sqs", "main", "orders.fifo", ""),
        (STREAM, "kinesis", "", "orders", STREAM),
        (TABLE, "dynamodb", "", "Orders", TABLE),
        (QUEUE, "sqs", "", "orders.fifo", QUEUE),
    ],
)
def test_sources_of_aws(written, kind, connection, name, arn):
    address = parse_source(written)

    assert (kind, connection, name, arn) == (address.kind, address.connection, address.name, address.arn)


@pytest.mark.parametrize(
    "written",
    ["kinesis://orders", "kinesis://main/", "kinesis://main/a/b", "sqs://main/o.x", "sqs://h:1/o", "sqs://main/o?as=x",
     "dynamodb://main/ab", FUNCTION, STREAM.replace("stream/", "stream:"), TABLE.partition("/stream")[0], QUEUE + "x"],
)  # fmt: skip
def test_sources_that_are_none(written):
    with pytest.raises(ValueError):
        parse_source(written)

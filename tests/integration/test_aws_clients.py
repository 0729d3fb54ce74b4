"""The daemon's clients of AWS against a service that misbehaves: what each fault means, and that a call is one attempt."""

import pytest

from bridge.aws.clients import AwsClients
from bridge.aws.errors import AwsTroubleKind, trouble
from bridge.core.connection import AwsConnection
from tests.brokers import fault_kinds as faults
from tests.brokers.wire import answer_json

pytestmark = [pytest.mark.integration]

CALLS = {
    "kinesis": lambda c: c.get_records(ShardIterator="i" * 8),
    "dynamodbstreams": lambda c: c.get_records(ShardIterator="i" * 8),
    "sqs": lambda c: c.receive_message(QueueUrl="http://127.0.0.1/q"),
    "lambda": lambda c: c.invoke(FunctionName="f", Payload=b"{}"),
    "sns": lambda c: c.publish(TopicArn="arn:aws:sns:us-east-1:123456789012:t", Message="m"),
    "s3": lambda c: c.put_object(Bucket="bucket", Key="key", Body=b"body"),
    "events": lambda c: c.put_events(Entries=[{"Source": "s", "DetailType": "t", "Detail": "{}"}]),
}
KINDS = {
    "throttle": (faults.throttle(), AwsTroubleKind.THROTTLED),
    "500": (faults.server_error(500), AwsTroubleKind.SERVICE),
    "503": (faults.server_error(503), AwsTroubleKind.SERVICE),
    "a balancer's 502": (faults.bare_error(502), AwsTroubleKind.SERVICE),
    "reset before": (faults.reset_before(), AwsTroubleKind.UNKNOWN_OUTCOME),
    "reset after": (faults.reset_after(), AwsTroubleKind.UNKNOWN_OUTCOME),
    "half an answer": (faults.half_answer(), AwsTroubleKind.UNKNOWN_OUTCOME),
    "slow": (faults.slow(30), AwsTroubleKind.UNKNOWN_OUTCOME),
    "expired token": (faults.expired_token(), AwsTroubleKind.EXPIRED_TOKEN),
    "denied": (faults.denied(), AwsTroubleKind.DENIED),
}


@pytest.mark.parametrize("service", CALLS)
async def test_every_fault_is_one_attempt_and_told_by_its_kind(aws_faults, service) -> None:
    stub = aws_faults()
    stub.answer("*", lambda call: answer_json({"Records": [], "padding": "x" * 500}))
    clients = AwsClients()
    connection = AwsConnection(
        name="aws", region=stub.region, endpoint_url=stub.endpoint_url, access_key_id="test", secret_access_key="test"
    )
    # A PUT on a connection that was kept open is repeated by aiohttp, once: the same object under the same key.
    kinds = {name: each for name, each in KINDS.items() if service != "s3" or "reset" not in name}
    found = {}
    try:
        for name, (fault, _) in kinds.items():
            client = await clients.client(connection, service, read_timeout_s=1.0 if name == "slow" else 60.0)
            stub.script("*", fault)
            with pytest.raises(Exception) as caught:
                answer = await CALLS[service](client)
                if service == "lambda":
                    await answer["Payload"].read()
            found[name] = trouble(caught.value).kind
    finally:
        await clients.close()

    assert found == {name: kind for name, (_, kind) in kinds.items()}
    assert len(stub.calls) == len(kinds)

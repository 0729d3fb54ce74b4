"""The trace header of single calls: on the wire as botocore writes it, and on no other call."""

import asyncio

import pytest

from bridge.aws.trace import sending
from bridge.core.arn import parse_arn
from bridge.core.outcome import OutboxEntry, OutcomeKind, TargetPlace
from bridge.destinations.aws import AwsTarget, aws_service
from tests.http_stub import Answer

HEADER = "Root=1-a-b;Lineage=24d8ebbc:3|0a1b2c3d:1"
ON_THE_WIRE = "Root=1-a-b;Lineage=24d8ebbc:3%7C0a1b2c3d:1"
PUBLISHED = b"<PublishResponse><PublishResult><MessageId>m</MessageId></PublishResult></PublishResponse>"


def sent(stub) -> list[str | None]:
    return [asked.headers.get("x-amzn-trace-id") for asked in stub.asked]


async def test_calls_at_once_on_one_client_have_their_own(clients, stub, connection) -> None:
    client = await clients.client(connection, "lambda")

    async def invoke(header: str) -> None:
        with sending(client, header):
            await client.invoke(FunctionName="f", Payload=b"{}")

    await asyncio.gather(invoke("Lineage=24d8ebbc:1"), invoke(""), invoke("Lineage=24d8ebbc:2"))
    await client.invoke(FunctionName="f", Payload=b"{}")

    assert sorted(map(str, sent(stub))) == ["Lineage=24d8ebbc:1", "Lineage=24d8ebbc:2", "None", "None"]


@pytest.mark.parametrize(("service", "resource"), [("sns", "t"), ("lambda", "function:other")])
async def test_a_record_s_goes_to_topics_and_functions_in_the_request(
    clients, stub, connection, service, resource
) -> None:
    stub.answer = Answer(body=PUBLISHED if service == "sns" else b"{}")
    arn = f"arn:aws:{service}:eu-central-1:123456789012:{resource}"

    async def client():
        return await clients.client(connection, service)

    target = AwsTarget(
        arn, aws_service(parse_arn(arn), source="", daemon=""), client=client, trace=lambda _entry, _letter: HEADER
    )
    entry = OutboxEntry(
        place=TargetPlace(target=arn), kind=OutcomeKind.ON_SUCCESS, id="1", function="f", created_at=0.0, record=b"{}"
    )
    await target.send(entry, None)

    assert sent(stub) == [ON_THE_WIRE]

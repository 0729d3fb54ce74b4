"""A role is asked before its function's mapping polls and before a record is sent for it."""

from types import SimpleNamespace

import pytest

from bridge.core.invocation import Condition, DeadLetter
from bridge.core.mapping import EventSourceMapping
from bridge.core.outcome import OutboxEntry, OutcomeKind, RecordRefused, TargetPlace, TargetTrouble
from bridge.daemon.role_checks import CheckedTransport, mapping_check, may_read, source_arn
from bridge.daemon.roles import RoleUnknown
from bridge.registry.managed_policies import ACTIONS
from bridge.registry.roles import NOT_ASSUMED, Role, forbidden, managed_statement

ARN = "arn:aws:iam::123456789012:role/worker"
QUEUE = "arn:aws:sqs:eu-central-1:123456789012:q"
PLACE = {"region": "us-east-1", "account": "000000000000"}


def role(*managed, statements=()):
    return Role(arn=ARN, statements=(*map(managed_statement, managed), *statements))


SENDER = role(statements=[{"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": QUEUE}])


def mapping(source, **more):
    return EventSourceMapping(name="m", source=source, function="f:live", **more)


class Roles:
    """One role for the function `f`; none for the others."""

    def __init__(self, found, connection=""):
        self.found, self.connection = found, connection

    def of_target(self, target):
        return self.found if target.partition(":")[0] == "f" else None

    async def find_of_target(self, target):
        return self.of_target(target)

    def arn_of_target(self, target):
        name = target.partition(":")[0]
        if name == "gone":
            return None
        return ARN if name == "f" and self.found else ""

    async def find(self, arn):
        assert arn == ARN
        if self.unknown:
            raise RoleUnknown("IAM did not answer")
        return self.found

    unknown = False


@pytest.mark.parametrize(
    ("source", "more", "arn"),
    [
        (QUEUE, {}, QUEUE),
        ("local://s?as=kinesis", {}, "arn:aws:kinesis:us-east-1:000000000000:stream/s"),
        ("local://s?as=sqs", {}, "arn:aws:sqs:us-east-1:000000000000:s"),
        ("local://s?as=kinesis", {"event_source_arn": "arn:x"}, "arn:x"),
        ("kinesis://aws/s", {}, "arn:aws:kinesis:us-east-1:000000000000:stream/s"),
        ("kafka://main/t", {}, ""),
        ("kafka://main/t", {"event_source_arn": "arn:k"}, "arn:k"),
        ("local://s?as=kafka", {}, ""),
        ("hooks", {}, ""),
    ],
)
def test_what_statements_name_a_source_by(source, more, arn):
    assert source_arn(mapping(source, **more), **PLACE) == arn


def test_an_embedded_table_has_the_arn_that_its_events_show():
    from bridge.sources.pull.local_formats import local_format

    made = mapping("local://tab?as=dynamodb")

    assert local_format(made).shape.arn == source_arn(made, **PLACE)


def test_each_source_asks_its_own_policy_and_a_cluster_of_ones_own_none():
    for source, policy in (
        ("local://s?as=kinesis", "AWSLambdaKinesisExecutionRole"),
        ("local://tab?as=dynamodb", "AWSLambdaDynamoDBExecutionRole"),
        ("local://s?as=sqs", "AWSLambdaSQSQueueExecutionRole"),
    ):
        for name in ACTIONS:
            assert (may_read(role(name), mapping(source), **PLACE) == "") is (name == policy)
    assert may_read(role(), mapping("kafka://main/t"), **PLACE) == ""
    assert may_read(None, mapping("local://s?as=sqs"), **PLACE) == ""
    assert may_read(forbidden(ARN), mapping("kafka://main/t"), **PLACE) == NOT_ASSUMED


async def test_a_mapping_is_refused_for_its_source_then_for_where_its_failures_go():
    source = mapping("local://s?as=kinesis", on_failure=QUEUE)
    reads = role("LambdaKinesisExecutionRole")

    assert (await mapping_check(Roles(role()), **PLACE)(source)).startswith("Cannot access stream arn:aws:kinesis:")
    assert await mapping_check(Roles(reads), **PLACE)(source) == (
        "The provided execution role does not have permissions to call SendMessage on SQS"
    )
    both = role("LambdaKinesisExecutionRole", statements=SENDER.statements)
    assert await mapping_check(Roles(both), **PLACE)(source) == ""
    assert await mapping_check(Roles(None), **PLACE)(source) == ""


# --- sends ---


class Inner:
    concurrency = 7

    def __init__(self):
        self.sent = []

    async def send(self, entry, letter):
        self.sent.append((entry.function, letter))


def entry(function="f:live", role=None):
    return OutboxEntry(
        place=TargetPlace(target=QUEUE), kind=OutcomeKind.ON_SUCCESS, id="1", function=function, role=role,
        created_at=0.0,
    )  # fmt: skip


def checked(found, *, target=QUEUE, connection=""):
    inner, assumed, asked = Inner(), Inner(), []

    def as_role(arn, session):
        asked.append((arn, session))
        return assumed

    roles = Roles(found, connection)
    transport = CheckedTransport(inner, target=target, roles=roles, assumed=as_role)
    return SimpleNamespace(transport=transport, inner=inner, assumed=assumed, asked=asked, roles=roles)


async def test_a_role_that_may_send_does():
    made = checked(SENDER)

    await made.transport.send(entry(), None)

    assert made.inner.sent == [("f:live", None)]
    assert made.transport.concurrency == 7


async def test_one_that_may_not_is_denied_and_nothing_is_sent():
    made = checked(role("LambdaBasicExecutionRole"))

    with pytest.raises(RecordRefused, match=r"^AccessDenied .*assumed-role/worker/f is not authorized to perform: sqs"):
        await made.transport.send(entry(), None)

    assert made.inner.sent == []


@pytest.mark.parametrize(
    ("function", "target"), [("other", QUEUE), ("f", "kafka://main/topic")], ids=["no role", "topic of Kafka"]
)
async def test_nothing_is_asked(function, target):
    made = checked(role(), target=target)

    await made.transport.send(entry(function), None)

    assert made.inner.sent == [(function, None)]


async def test_with_a_connection_the_role_itself_sends():
    made = checked(SENDER, connection="aws")

    await made.transport.send(entry(), None)

    assert (made.inner.sent, made.assumed.sent) == ([], [("f:live", None)])
    assert made.asked == [(ARN, "f")]


async def test_what_iam_has_not_said_yet_is_waited_for():
    made = checked(forbidden(ARN), connection="aws")

    with pytest.raises(TargetTrouble, match=ARN):
        await made.transport.send(entry(), None)


# --- of functions that are gone ---


@pytest.mark.parametrize("connection", ["aws", ""])
async def test_a_record_of_a_function_that_is_gone_is_sent_as_the_role_that_it_had(connection):
    made = checked(SENDER, connection=connection)

    await made.transport.send(entry("gone:live", role=ARN), None)

    sent = [("gone:live", None)]
    assert (made.inner.sent, made.assumed.sent) == (([], sent) if connection else (sent, []))
    assert made.asked == ([(ARN, "gone")] if connection else [])


async def test_it_is_not_sent_where_that_role_may_not_is_gone_too_or_was_never_noted():
    for found, role_arn in ((role(), ARN), (forbidden(ARN), ARN), (SENDER, None)):
        made = checked(found, connection="aws")
        with pytest.raises(RecordRefused):
            await made.transport.send(entry("gone", role=role_arn), None)
        assert (made.inner.sent, made.assumed.sent) == ([], [])


async def test_it_waits_while_iam_does_not_answer():
    made = checked(SENDER, connection="aws")
    made.roles.unknown = True
    with pytest.raises(TargetTrouble, match="IAM did not answer"):
        await made.transport.send(entry("gone", role=ARN), None)


async def test_one_that_had_no_role_is_sent_by_the_connection():
    made = checked(SENDER, connection="aws")
    await made.transport.send(entry("gone", role=""), None)
    assert made.inner.sent == [("gone", None)]


# --- objects of a bucket ---


async def test_a_bucket_is_asked_for_the_very_object():
    failure = DeadLetter(
        id="1", queue="default", function="f", source="s", received_at=1.0, dead_at=2.0, attempts=1,
        condition=Condition.RETRIES_EXHAUSTED, payload=b"{}",
    )  # fmt: skip
    bucket = "arn:aws:s3:::bucket"
    for key, is_sent in (("aws/lambda/async/f/1970/*", True), ("aws/lambda/async/g/*", False)):
        found = role(statements=[{"Effect": "Allow", "Action": "s3:PutObject", "Resource": f"{bucket}/{key}"}])
        made = checked(found, target=bucket)
        if is_sent:
            await made.transport.send(entry("f"), failure)
        else:
            with pytest.raises(RecordRefused, match=rf"on resource: {bucket}/aws/lambda/async/f/1970/01/01/"):
                await made.transport.send(entry("f"), failure)
        assert made.inner.sent == ([("f", failure)] if is_sent else [])

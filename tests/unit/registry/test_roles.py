"""Execution roles: what their statements allow, the managed policies, and AWS's words for what they do not."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.registry.grants import (
    READING,
    in_short,
    may_log,
    network_refusal,
    reading_refusal,
    sending_action,
    sending_refusal,
)
from bridge.registry.managed_policies import ACTIONS, managed_actions
from bridge.registry.roles import (
    Role,
    forbidden,
    is_trusting,
    managed_statement,
    statement_fault,
    statements_of,
    unrestricted,
)

ARN = "arn:aws:iam::123456789012:role/worker"
QUEUE = "arn:aws:sqs:eu-central-1:123456789012:orders"
STREAM = "arn:aws:kinesis:eu-central-1:123456789012:stream/orders"
TABLE = "arn:aws:dynamodb:eu-central-1:123456789012:table/orders/stream/2026-01-01T00:00:00.000"
CLUSTER = "arn:aws:kafka:eu-central-1:123456789012:cluster/c/1-2-3"


def role(*statements):
    return Role(arn=ARN, statements=statements)


def managed(*names):
    return role(*(managed_statement(name) for name in names))


def allow(action, resource="*", **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action, resource="*", **more):
    return {"Effect": "Deny", "Action": action, "Resource": resource, **more}


# --- evaluation ---


@pytest.mark.parametrize(
    ("statements", "is_allowed"),
    [
        ((), False),
        ((allow("sqs:ReceiveMessage"),), True),
        ((allow("SQS:receivemessage"),), True),
        ((allow("sqs:Receive*"),), True),
        ((allow("sqs:ReceiveMessag?"),), True),
        ((allow("*"),), True),
        ((allow("sqs:Send*"),), False),
        ((allow(["kinesis:*", "sqs:*"]),), True),
        ((allow("sqs:*", QUEUE),), True),
        ((allow("sqs:*", "arn:aws:sqs:*:123456789012:ord*"),), True),
        ((allow("sqs:*", QUEUE.upper()),), False),
        ((allow("sqs:*", "arn:aws:sqs:eu-central-1:123456789012:other"),), False),
        ((allow("sqs:*"), deny("sqs:ReceiveMessage")), False),
        ((deny("sqs:*", QUEUE), allow("*")), False),
        ((deny("sqs:*", QUEUE + "-dead"), allow("*")), True),
        (({"Effect": "Allow", "NotAction": "sqs:Receive*", "Resource": "*"},), False),
        (({"Effect": "Allow", "NotAction": ["s3:*", "sqs:Send*"], "Resource": "*"},), True),
        (({"Effect": "Allow", "Action": "sqs:*", "NotResource": QUEUE},), False),
        ((allow("sqs:*"), {"Effect": "Deny", "NotAction": "sqs:*", "Resource": "*"}), True),
        ((allow("sqs:*", Condition={"StringEquals": {"aws:SourceVpc": "vpc-1"}}),), False),
        ((allow("sqs:*"), deny("*", Condition={"Bool": {"aws:MultiFactorAuthPresent": "false"}})), True),
        ((allow("sqs:*"), deny("*", Condition={"StringNotEquals": {"aws:SourceVpc": "vpc-1"}})), False),
        ((allow("sqs:*", Condition={"StringNotEquals": {"aws:SourceVpc": "vpc-1"}}),), False),
        ((allow("sqs:*", Condition={"StringEquals": {"aws:PrincipalAccount": "123456789012"}}),), True),
        ((allow("sqs:*", Condition={"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/work*"}}),), True),
        ((allow("sqs:*", Condition={"NumericLessThan": {"aws:PrincipalAccount": "9"}}),), False),
    ],
)
def test_evaluation(statements, is_allowed):
    assert role(*statements).allows("sqs:ReceiveMessage", QUEUE) is is_allowed


NAMES = st.sampled_from(["sqs:ReceiveMessage", "sqs:SendMessage", "kinesis:GetRecords", "sqs:*", "kinesis:Get*", "*"])
RESOURCES = st.sampled_from([QUEUE, STREAM, "*", "arn:aws:sqs:*:*:*", "arn:aws:kinesis:*:123456789012:stream/o?ders"])
ASKED = st.tuples(st.sampled_from(["sqs:ReceiveMessage", "sqs:SendMessage", "kinesis:GetRecords"]),
                  st.sampled_from([QUEUE, STREAM]))  # fmt: skip
STATEMENTS = st.builds(
    lambda effect, actions, resources: {"Effect": effect, "Action": actions, "Resource": resources},
    st.sampled_from(["Allow", "Deny"]),
    st.lists(NAMES, min_size=1, max_size=3),
    st.lists(RESOURCES, min_size=1, max_size=3),
)


def applies(statement, action, resource):
    def matches(pattern, text):
        return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text) is not None

    return any(matches(each, action) for each in statement["Action"]) and any(
        matches(each, resource) for each in statement["Resource"]
    )


@given(statements=st.lists(STATEMENTS, max_size=6), asked=ASKED)
def test_an_explicit_denial_counts_first_and_silence_denies(statements, asked):
    applying = [each["Effect"] for each in statements if applies(each, *asked)]

    assert role(*statements).allows(*asked) is ("Deny" not in applying and "Allow" in applying)


@given(statements=st.lists(STATEMENTS, max_size=6), more=STATEMENTS, asked=ASKED)
def test_no_statement_that_denies_allows_more_and_order_is_of_no_account(statements, more, asked):
    before = role(*statements).allows(*asked)

    assert role(*reversed(statements)).allows(*asked) is before
    after = role(*statements, more).allows(*asked)
    assert after <= before if more["Effect"] == "Deny" else after >= before


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        (allow("sqs:*"), ""),
        ("Allow", "a statement is a table"),
        ({"Effect": "allow", "Action": "*", "Resource": "*"}, "Effect must be Allow or Deny"),
        ({"Effect": "Allow", "Resource": "*"}, "either Action or NotAction"),
        ({"Effect": "Allow", "Action": "*", "NotAction": "*", "Resource": "*"}, "either Action or NotAction"),
        ({"Effect": "Allow", "Action": "*"}, "either Resource or NotResource"),
        ({"Effect": "Allow", "Action": [1], "Resource": "*"}, "Action must be a text or a list of texts"),
        (allow("*", Principal="*"), "Principal: not a member of a role's statement"),
        (allow("*", Condition={"Bool": "true"}), "Condition must be tables of keys by operator"),
    ],
)
def test_what_is_a_statement(statement, fault):
    assert statement_fault(statement) == fault


def test_a_document_may_have_one_statement_that_is_no_list():
    assert statements_of({"Statement": allow("*")}) == (allow("*"),)
    with pytest.raises(ValueError, match="Effect"):
        statements_of({"Statement": [{}]})


@pytest.mark.parametrize(
    ("principal", "is_trusted"),
    [
        ({"Service": "lambda.amazonaws.com"}, True),
        ({"Service": ["ec2.amazonaws.com", "lambda.amazonaws.com"]}, True),
        ({"Service": "ec2.amazonaws.com"}, False),
        ({"AWS": "arn:aws:iam::123456789012:root"}, False),
        ("*", True),
        (None, False),
    ],
)
def test_trust(principal, is_trusted):
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal}

    assert is_trusting({"Statement": [statement]}) is is_trusted
    assert is_trusting({"Statement": [statement, {**statement, "Effect": "Deny"}]}) is False


# --- managed policies ---


def test_managed_policies_are_known_by_either_name_and_by_arn():
    for name in ACTIONS:
        assert managed_actions(name) == ACTIONS[name]
        assert managed_actions(name.removeprefix("AWS")) == ACTIONS[name]
        assert managed_actions(f"arn:aws:iam::aws:policy/service-role/{name}") == ACTIONS[name]
    assert managed_actions("AdministratorAccess") is None


def test_managed_policies_allow_their_actions_and_nothing_else():
    every = sorted({action for actions in ACTIONS.values() for action in actions} | {"lambda:InvokeFunction"})

    for name, actions in ACTIONS.items():
        held = managed(name)
        assert [each for each in every if held.allows(each, "*")] == sorted(actions)


@pytest.mark.parametrize(
    ("policy", "arn"),
    [
        ("AWSLambdaKinesisExecutionRole", STREAM),
        ("LambdaDynamoDBExecutionRole", TABLE),
        ("AWSLambdaSQSQueueExecutionRole", QUEUE),
        ("LambdaMSKExecutionRole", CLUSTER),
    ],
)
def test_each_source_is_read_by_its_managed_policy_and_by_no_other(policy, arn):
    assert reading_refusal(managed(policy), arn) == ""
    for other in ACTIONS.keys() - {policy, "AWS" + policy}:
        assert reading_refusal(managed(other), arn) != ""


# --- words ---


def test_refusals_of_sources_are_in_awss_words():
    nothing = managed("LambdaBasicExecutionRole")

    assert reading_refusal(nothing, QUEUE) == (
        "The function execution role does not have permissions to call ReceiveMessage on SQS"
    )
    assert reading_refusal(role(allow("sqs:ReceiveMessage")), QUEUE) == (
        "The function execution role does not have permissions to call DeleteMessage on SQS"
    )
    for arn in (STREAM, TABLE):
        assert reading_refusal(nothing, arn) == (
            f"Cannot access stream {arn}. Please ensure the role can perform the GetRecords, GetShardIterator, "
            "DescribeStream, ListShards, and ListStreams Actions on your stream in IAM."
        )
    assert "DescribeCluster and GetBootstrapBrokers" in reading_refusal(nothing, CLUSTER)


def test_a_consumer_reads_the_stream_that_it_is_of():
    held = role(allow(list(READING["kinesis"]), STREAM))

    assert reading_refusal(held, f"{STREAM}/consumer/c:1") == ""
    assert reading_refusal(held, f"{STREAM}2") != ""


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (QUEUE, "SendMessage on SQS"),
        ("arn:aws:sns:eu-central-1:123456789012:t", "Publish on SNS"),
        ("arn:aws:lambda:eu-central-1:123456789012:function:f", "InvokeFunction on Lambda"),
        ("arn:aws:events:eu-central-1:123456789012:event-bus/b", "PutEvents on EventBridge"),
        ("arn:aws:s3:::bucket", "PutObject on S3"),
    ],
)
def test_targets_ask_for_the_action_that_sends(target, words):
    assert sending_refusal(role(), target) == (f"The provided execution role does not have permissions to call {words}")
    resource = f"{target}/*" if ":s3:" in target else target
    assert sending_refusal(role(allow(sending_action(target), resource)), target) == ""


def test_topics_of_kafka_ask_for_nothing():
    assert sending_refusal(role(), "kafka://main/topic") == ""


def test_objects_of_a_bucket_are_what_is_written():
    assert sending_refusal(role(allow("s3:PutObject", "arn:aws:s3:::bucket/*")), "arn:aws:s3:::bucket") == ""
    assert sending_refusal(role(allow("s3:PutObject", "arn:aws:s3:::bucket")), "arn:aws:s3:::bucket") != ""


@pytest.mark.parametrize(
    ("resource", "is_refused"),
    [
        ("arn:aws:s3:::bucket/aws/lambda/async/orders/*", False),
        ("arn:aws:s3:::bucket/aws/lambda/0b1c2d3e-*", False),
        ("arn:aws:s3:::bucket/aws/*", False),
        ("arn:aws:s3:::b*", False),
        ("*", False),
        ("arn:aws:s3:::bucket/other/*", True),
        ("arn:aws:s3:::buckets/*", True),
        ("arn:aws:s3:::bucket/", True),
    ],
)
def test_a_role_that_allows_some_keys_of_a_bucket_is_taken(resource, is_refused):
    may = allow("s3:PutObject", resource)
    assert bool(sending_refusal(role(may), "arn:aws:s3:::bucket")) is is_refused
    never = {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::bucket/*"}
    assert sending_refusal(role(may, never), "arn:aws:s3:::bucket") != ""
    bounded = replace(role(allow("*")), boundary=(may,))
    assert bool(sending_refusal(bounded, "arn:aws:s3:::bucket")) is is_refused


def test_network_interfaces_and_logs():
    assert network_refusal(role()) == (
        "The provided execution role does not have permissions to call CreateNetworkInterface on EC2"
    )
    assert network_refusal(managed("LambdaVPCAccessExecutionRole")) == ""
    place = {"group": "/aws/lambda/f", "stream": "2026/01/01/[$LATEST]0", "region": "eu-central-1"}
    assert may_log(managed("LambdaBasicExecutionRole"), **place, account="123456789012")
    own = role(allow(["logs:CreateLogStream", "logs:PutLogEvents"],
                     "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/lambda/f:*"))  # fmt: skip
    assert may_log(own, **place, account="123456789012")
    assert not may_log(own, **{**place, "group": "/aws/lambda/g"}, account="123456789012")
    assert not may_log(role(allow("logs:CreateLogStream")), **place, account="123456789012")


def test_denials_name_the_session():
    assert role().denial("sqs:SendMessage", QUEUE, session="f") == (
        f"User: arn:aws:sts::123456789012:assumed-role/worker/f is not authorized to perform: sqs:SendMessage on "
        f"resource: {QUEUE} because no identity-based policy allows the sqs:SendMessage action"
    )


def test_roles_that_are_not_known_may_everything_or_nothing():
    assert unrestricted(ARN).allows("sqs:SendMessage", QUEUE)
    assert unrestricted(ARN).is_trusting
    assert not forbidden(ARN).allows("sqs:SendMessage", QUEUE)
    assert not forbidden(ARN).is_trusting


def test_short_lines_say_what_is_allowed():
    assert list(in_short(role(allow(["sqs:SendMessage", "sns:Publish"], QUEUE), deny("s3:*")))) == [
        f"Allow sqs:SendMessage, sns:Publish on {QUEUE}",
        "Deny s3:* on *",
    ]


# --- the page ---


def test_the_page_has_the_table_as_it_is():
    text = (Path(__file__).parents[3] / "docs" / "permissions.md").read_text()
    rows = dict(re.findall(r"^\| (AWSLambda\w+) \| (.*) \|$", text, re.MULTILINE))

    assert {name: tuple(actions.split(", ")) for name, actions in rows.items()} == ACTIONS

"""Statements of resource policies: as AWS wrote the recorded ones, and what they allow (semantics 5.7)."""

import json
import time
from pathlib import Path

import pytest

from bridge.registry.statements import (
    INVOKE,
    INVOKE_URL,
    PRINCIPAL_ORG,
    SOURCE_ACCOUNT,
    SOURCE_ARN,
    URL_AUTH_TYPE,
    VIA_URL,
    BadPrincipal,
    Question,
    allows,
    arn_like,
    make_statement,
    principal_of,
)

ARN = "arn:aws:lambda:us-east-1:111111111111:function:f"
BUCKET = "arn:aws:s3:::bucket"


def made(principal, action=INVOKE, **conditions):
    return make_statement("s", action=action, principal=principal, resource=ARN, conditions=conditions)


def service(name="s3.amazonaws.com", **keys):
    return Question(action=INVOKE, service=name, keys=keys)


def account(number="222222222222", user="u", action=INVOKE, **keys):
    return Question(action=action, account=number, arn=f"arn:aws:iam::{number}:user/{user}", keys=keys)


@pytest.mark.parametrize(
    "principal", ["", "1234", "invalid", "arn:aws:s3:::bucket", "s3.example.com", "arn:aws:iam::1:root"]
)
def test_nobody_is_refused(principal):
    with pytest.raises(BadPrincipal):
        principal_of(principal)


def test_a_service_is_allowed_from_its_source_alone():
    policy = [made("s3.amazonaws.com", SourceArn=BUCKET, SourceAccount="111111111111")]
    right = {SOURCE_ARN: BUCKET, SOURCE_ACCOUNT: "111111111111"}

    assert allows(policy, service(**right))
    assert not allows(policy, service("sns.amazonaws.com", **right))
    assert not allows(policy, service(**right | {SOURCE_ARN: BUCKET + "x"}))
    assert not allows(policy, service(**right | {SOURCE_ACCOUNT: "222222222222"}))
    assert not allows(policy, service(**{SOURCE_ARN: BUCKET})), "a key that is not there fulfils no condition"


def test_an_account_allows_its_identities_and_an_identity_itself_alone():
    assert allows([made("222222222222")], account())
    assert not allows([made("222222222222")], account("333333333333"))
    user = [made("arn:aws:iam::222222222222:user/u")]
    assert allows(user, account())
    assert not allows(user, account(user="v"))
    assert not allows(user, service())
    assert allows([made("*")], service())
    assert allows([made("*", PrincipalOrgID="o-1234567890")], account(**{PRINCIPAL_ORG: "o-1234567890"}))
    assert not allows([made("*", PrincipalOrgID="o-1234567890")], account())


def test_actions_are_patterns():
    for action, is_allowed in (("lambda:*", True), ("*", True), ("lambda:invokefunction", True), (INVOKE_URL, False)):
        assert is_allowed == allows([made("*", action)], account())


def test_a_call_by_a_function_url_is_told_apart_as_aws_does():
    statement = made("*", InvokedViaFunctionUrl="true")

    assert statement["Condition"] == {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}


def test_conditions_of_function_urls_hold_for_them_alone():
    url = [made("*", INVOKE_URL, FunctionUrlAuthType="NONE"), made("*", InvokedViaFunctionUrl="true")]

    assert allows(url, account(action=INVOKE_URL, **{URL_AUTH_TYPE: "NONE"}))
    assert not allows(url, account(action=INVOKE_URL, **{URL_AUTH_TYPE: "AWS_IAM"}))
    assert allows(url, account(**{VIA_URL: "true"}))
    assert not allows(url, account())


@pytest.mark.parametrize(
    ("pattern", "arn", "is_like"),
    [
        ("arn:aws:s3:::bu*", BUCKET, True),
        ("arn:aws:s3:::bu?ket", BUCKET, True),
        ("arn:aws:*", BUCKET, False),
        ("arn:aws:s3:*:*:*", BUCKET, True),
        ("arn:aws:*:bucket", "arn:aws:s3:::bucket", False),
        ("arn:aws:execute-api:us-east-1:1:api/*/GET/a*b", "arn:aws:execute-api:us-east-1:1:api/prod/GET/a/x/b", True),
        ("arn:aws:execute-api:us-east-1:1:api/*/GET/a*b", "arn:aws:execute-api:us-east-1:1:api/prod/GET/a/x/c", False),
        ("arn:aws:sns:us-east-1:1:a*b*c", "arn:aws:sns:us-east-1:1:abbc", True),
        ("arn:aws:sns:us-east-1:1:ab*bc", "arn:aws:sns:us-east-1:1:abc", False),
    ],
)
def test_stars_stay_within_a_part(pattern, arn, is_like):
    assert is_like == arn_like(pattern, arn)


def test_many_stars_take_no_time():
    started = time.process_time()
    assert not arn_like("arn:aws:s3:::" + "*a" * 3000 + "b", "arn:aws:s3:::" + "a" * 9000)
    assert time.process_time() - started < 5


RECORDINGS = Path(__file__).parents[1] / "events" / "golden" / "captured-from-aws"
MEANT = {
    "<partition>": "aws", "<region>": "us-east-1", "<resource:1>": "f", "<resource:2>": "root", "<resource:3>": "bucket",
    "<user_arn>": "arn:aws:iam::111111111111:user/u",
}  # fmt: skip


def recorded():
    text = (RECORDINGS / "policy-add-permission-variants.json").read_text()
    for placeholder, meant in MEANT.items():
        text = text.replace(placeholder, meant)
    return [answer["Statement"] for answer in json.loads(text).values()]


@pytest.mark.parametrize("statement", recorded(), ids=lambda statement: statement["Sid"])
def test_statements_are_those_that_aws_recorded(statement):
    principal = statement["Principal"]
    given = {
        key.partition(":")[2]: value for keys in statement.get("Condition", {}).values() for key, value in keys.items()
    }

    assert statement == make_statement(
        statement["Sid"],
        action=statement["Action"],
        principal=principal if isinstance(principal, str) else next(iter(principal.values())),
        resource=ARN,
        conditions=given,
    )
    if statement["Sid"] == "account-id":
        assert principal == principal_of("111111111111")

"""The execution roles of a daemon: declared, looked up at IAM and kept fresh, or unknown."""

import json
from urllib.parse import parse_qs

import pytest
import structlog

from bridge.config.load import load
from bridge.core.function import Function, FunctionVersion
from bridge.daemon.aws import AwsReach
from bridge.daemon.roles import ASK_AGAIN_S, KNOWN_S, Roles, RoleUnknown
from bridge.registry.catalog import FunctionCatalog
from bridge.testing.clock import ManualClock
from tests.http_stub import RESET, Answer, http_stub

ACCOUNT = "123456789012"
DECLARED = f"arn:aws:iam::{ACCOUNT}:role/worker"
OTHER = f"arn:aws:iam::{ACCOUNT}:role/team/other"
QUEUE = f"arn:aws:sqs:us-east-1:{ACCOUNT}:q"
FILE = f"""
account = "{ACCOUNT}"
[roles.worker]
managed = ["AWSLambdaSQSQueueExecutionRole"]
"""
IAM = """
[roles]
connection = "aws"
[connections.aws]
type = "aws"
region = "us-east-1"
endpoint_url = "{url}"
access_key_id = "AKID"
secret_access_key = {{ file = "secret" }}
"""
XML = '<{0}Response xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><{0}Result>{1}</{0}Result></{0}Response>'
GONE = (
    b"<ErrorResponse><Error><Type>Sender</Type><Code>NoSuchEntity</Code><Message>no</Message></Error></ErrorResponse>"
)
TRUST = {"Statement": {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "lambda.amazonaws.com"}}}


class Iam:
    """IAM with one role, as an answer of the stub."""

    def __init__(self):
        self.arn, self.trust, self.boundary = OTHER, TRUST, ""
        self.inline = {"Statement": [{"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": QUEUE}]}
        self.attached = {"Statement": [{"Effect": "Allow", "Action": "sqs:ReceiveMessage", "Resource": "*"}]}
        self.within = {"Statement": [{"Effect": "Allow", "Action": "sqs:Send*", "Resource": "*"}]}
        self.fault = None
        self.calls = []

    def __call__(self, asked):
        form = {name: value[0] for name, value in parse_qs(asked.body.decode()).items()}
        action = form["Action"]
        self.calls.append(action)
        if self.fault is not None:
            return self.fault
        if action == "GetRole" and form["RoleName"] != "other":
            return Answer(status=404, body=GONE)
        return Answer(
            body=XML.format(action, self._result(action, form)).encode(), headers={"Content-Type": "text/xml"}
        )

    def _result(self, action, form):
        match action:
            case "GetRole":
                limit = f"<PermissionsBoundary><PermissionsBoundaryArn>{self.boundary}</PermissionsBoundaryArn>"
                limit = limit + "</PermissionsBoundary>" if self.boundary else ""
                trust = json.dumps(self.trust)
                return f"<Role><Arn>{self.arn}</Arn><AssumeRolePolicyDocument>{trust}</AssumeRolePolicyDocument>{limit}</Role>"
            case "ListAttachedRolePolicies" if "Marker" not in form:
                return "<AttachedPolicies/><IsTruncated>true</IsTruncated><Marker>m</Marker>"
            case "ListAttachedRolePolicies":
                return "<AttachedPolicies><member><PolicyArn>arn:aws:iam::aws:policy/p</PolicyArn></member></AttachedPolicies>"
            case "ListRolePolicies":
                return "<PolicyNames><member>own</member></PolicyNames>"
            case "GetRolePolicy":
                return f"<PolicyDocument>{json.dumps(self.inline)}</PolicyDocument>"
            case "GetPolicy":
                return "<Policy><DefaultVersionId>v3</DefaultVersionId></Policy>"
            case "GetPolicyVersion":
                document = self.within if form["PolicyArn"] == self.boundary else self.attached
                return f"<PolicyVersion><Document>{json.dumps(document)}</Document></PolicyVersion>"
        raise AssertionError(action)


def function(name, role):
    latest = FunctionVersion(
        name=name, arn=f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{name}", code="/x", revision="1", handler="a.b",
        role=role,
    )  # fmt: skip
    return Function(name=name, latest=latest)


@pytest.fixture
def made(tmp_path):
    """Return `made(text, *functions)`: the roles of a file and these functions, with their clock."""
    (tmp_path / "secret").write_text("s")
    (tmp_path / "secret").chmod(0o600)

    def settings(text):
        (tmp_path / "bridge.toml").write_text(text)
        return load(tmp_path / "bridge.toml", {}).settings

    def make(text, *functions):
        clock = ManualClock()
        found = settings(text)
        roles = Roles(found, aws=AwsReach(found, clock=clock), catalog=FunctionCatalog(functions), clock=clock)
        return roles, clock

    make.settings = settings
    return make


@pytest.fixture
async def iam():
    async with http_stub() as stub:
        answers = Iam()
        stub.answer = answers
        answers.url = stub.url
        yield answers


# --- of the file ---


async def test_a_declared_role_is_what_the_file_says_and_follows_it(made):
    roles, _ = made(FILE, function("f", DECLARED))

    assert roles.of_target("f").allows("sqs:ReceiveMessage", QUEUE)
    assert roles.of_target("f:$LATEST") == await roles.find(DECLARED)
    assert roles.facts() == [("roles", True, "1 in use, all of them known")]

    replaced = []
    roles.replace = replaced.append
    roles.configure(made.settings(FILE))
    assert replaced == []
    roles.configure(made.settings(FILE.replace("SQSQueue", "Basic")))
    assert replaced == ["f"]
    assert not roles.of_target("f").allows("sqs:ReceiveMessage", QUEUE)


def test_functions_without_a_role_and_unknown_ones_have_none(made):
    roles, _ = made(FILE, function("f", ""))

    assert roles.of_target("f") is None
    assert roles.of_target("f:gone") is None
    assert roles.of_target("nobody") is None
    assert roles.facts() == []


@pytest.mark.parametrize(("unknown", "may"), [("", True), ('[roles]\nunknown = "deny"\n', False)])
def test_roles_that_nobody_declares(made, unknown, may):
    roles, _ = made(FILE + unknown, function("f", OTHER))

    for _ in range(3):
        role = roles.of_target("f")
    assert (role.is_known, role.allows("sqs:SendMessage", QUEUE), role.is_trusting) == (False, may, may)
    (fact,) = roles.facts()
    what = "everything" if may else "nothing"
    assert fact == ("roles", may, f"unknown, may do {what}: {OTHER}; declare them ([roles.X])")


def test_an_unknown_role_is_told_once_and_the_made_up_one_never(made):
    roles, _ = made(FILE, function("f", OTHER), function("g", "arn:aws:iam::000000000000:role/bridge"))

    with structlog.testing.capture_logs() as lines:
        for target in ("f", "g", "f", "g"):
            roles.of_target(target)
    told = [line["role"] for line in lines if line["event"] == "role_unknown"]
    assert told == [OTHER]
    assert roles.unknown() == [OTHER]


# --- of IAM ---


async def test_a_role_is_looked_up_with_all_its_policies(made, iam):
    roles, _ = made(FILE + IAM.format(url=iam.url), function("f", OTHER))

    assert not roles.of_target("f").allows("sqs:SendMessage", QUEUE)  # not before it is known
    role = await roles.find(OTHER)

    assert role == roles.of_target("f")
    assert (role.is_known, role.is_trusting) == (True, True)
    assert role.allows("sqs:SendMessage", QUEUE)
    assert role.allows("sqs:ReceiveMessage", QUEUE)
    assert not role.allows("sqs:DeleteMessage", QUEUE)


async def test_what_it_says_is_believed_for_a_while_and_a_change_is_told(made, iam):
    roles, clock = made(FILE + IAM.format(url=iam.url), function("f", OTHER))
    await roles.open()
    calls = len(iam.calls)
    iam.inline, replaced, changes = {"Statement": []}, [], []
    roles.replace, roles.changed = replaced.append, lambda: changes.append(1)

    await roles._refresh()
    assert (len(iam.calls), changes) == (calls, [])
    await clock.advance(KNOWN_S)
    await roles.find(OTHER)  # whoever asks first
    assert (replaced, changes) == (["f"], [1])
    assert not roles.of_target("f").allows("sqs:SendMessage", QUEUE)
    await roles._refresh()
    assert changes == [1]


async def test_a_boundary_must_allow_it_too(made, iam):
    iam.boundary = "arn:aws:iam::aws:policy/limit"
    roles, _ = made(FILE + IAM.format(url=iam.url))

    role = await roles.find(OTHER)

    assert role.allows("sqs:SendMessage", QUEUE)
    assert not role.allows("sqs:ReceiveMessage", QUEUE)


@pytest.mark.parametrize("arn", [f"arn:aws:iam::{ACCOUNT}:role/gone", f"arn:aws:iam::{ACCOUNT}:role/other"])
async def test_a_role_that_iam_does_not_have_cannot_be_assumed(made, iam, arn):
    """The second has the name of one that lies under another path."""
    roles, _ = made(FILE + IAM.format(url=iam.url) + '[listen]\napi = "127.0.0.1:0"\n')

    role = await roles.find(arn)

    assert (role.is_known, role.is_trusting, role.allows("sqs:SendMessage", QUEUE)) == (False, False, False)


async def test_a_role_that_does_not_trust_lambda(made, iam):
    iam.trust = {"Statement": [{**TRUST["Statement"], "Principal": {"Service": "ec2.amazonaws.com"}}]}
    roles, _ = made(FILE + IAM.format(url=iam.url))

    assert (await roles.find(OTHER)).is_trusting is False


async def test_while_iam_does_not_answer_what_it_said_counts(made, iam):
    roles, clock = made(FILE + IAM.format(url=iam.url), function("f", OTHER))
    iam.fault = RESET
    with pytest.raises(RoleUnknown, match=OTHER):
        await roles.find(OTHER)
    assert roles.troubles()
    iam.fault = None
    with pytest.raises(RoleUnknown):
        await roles.find(OTHER)  # not asked at every call

    await clock.advance(ASK_AGAIN_S)
    assert (await roles.find(OTHER)).allows("sqs:SendMessage", QUEUE)
    iam.fault = RESET
    await clock.advance(KNOWN_S)
    assert (await roles.find(OTHER)).allows("sqs:SendMessage", QUEUE)
    assert roles.troubles()


async def test_declared_roles_are_not_looked_up(made, iam):
    roles, _ = made(FILE + IAM.format(url=iam.url), function("f", DECLARED))

    await roles.open()

    assert roles.of_target("f").is_known
    assert iam.calls == []

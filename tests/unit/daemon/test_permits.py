"""As whom the file's sources invoke, what naming a function implies, and what `policy = "explicit"` asks for."""

import json

import pytest

from bridge.config.load import load
from bridge.core.errors import InvokeDenied
from bridge.core.invocation import InvocationType
from bridge.core.record import Record
from bridge.daemon.permits import PermittedIntake, implied_statements, make_permits, sender_of
from bridge.daemon.push import read_routes
from bridge.registry.attached import NoDocuments
from bridge.registry.policies import ResourcePolicies
from bridge.registry.statements import make_statement
from bridge.sources.push.webhook import WebhookSource
from bridge.testing.clock import ManualClock
from bridge.testing.push import MemoryIntake, ScriptedInvoker

FUNCTION = "arn:aws:lambda:eu-central-1:123456789012:function:hello"
HEAD = 'account = "123456789012"\nregion = "eu-central-1"\n[functions.hello]\ncode = "f"\nhandler = "app.handler"\n'
WEBHOOK = 'type = "webhook"\npath = "/hooks/s"\nfunction = "hello"\nverify = "none"\n'
SCHEDULE = 'type = "schedule"\nschedule = "rate(5 minutes)"\nfunction = "hello:$LATEST"\n'
MQTT = 'type = "mqtt"\nurl = "mqtt://broker"\ntopics = ["a"]\nfunction = "hello"\n'
PLACE = "eu-central-1:123456789012"
TOPIC = "arn:aws:sns:eu-west-1:222222222222:orders"


@pytest.fixture
def read(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f/app.py").write_text("def handler(event, context): ...")

    def read(text):
        (tmp_path / "bridge.toml").write_text(f"{HEAD}[sources.s]\n{text}")
        return load(tmp_path / "bridge.toml", {}).settings

    return read


@pytest.mark.parametrize(
    ("source", "service", "arn"),
    [
        (WEBHOOK, "apigateway.amazonaws.com", f"arn:aws:execute-api:{PLACE}:s/$default/POST/hooks/s"),
        (WEBHOOK + 'methods = ["GET", "POST"]', "apigateway.amazonaws.com", f"arn:aws:execute-api:{PLACE}:s/$default/*/hooks/s"),
        (WEBHOOK + 'format = "apigateway-v1"', "apigateway.amazonaws.com", f"arn:aws:execute-api:{PLACE}:s/$default/POST/hooks/s"),
        (WEBHOOK + 'format = "alb"', "elasticloadbalancing.amazonaws.com", f"arn:aws:elasticloadbalancing:{PLACE}:targetgroup/s/043a718774c572bd"),
        (WEBHOOK + f'format = "sns"\ntopics = ["{TOPIC}"]', "sns.amazonaws.com", TOPIC),
        (WEBHOOK + f'format = "sns"\ntopics = ["{TOPIC}*"]', "sns.amazonaws.com", f"arn:aws:sns:{PLACE}:s"),
        (WEBHOOK + 'format = "s3"', "s3.amazonaws.com", "arn:aws:s3:::s"),
        (WEBHOOK + 'format = "eventbridge"', "events.amazonaws.com", f"arn:aws:events:{PLACE}:rule/s"),
        (WEBHOOK + 'format = "cloudwatch-logs"', "logs.amazonaws.com", f"arn:aws:logs:{PLACE}:log-group:/bridge/s:*"),
        (WEBHOOK + 'format = "cognito"\ninvocation_type = "RequestResponse"', "cognito-idp.amazonaws.com", f"arn:aws:cognito-idp:{PLACE}:userpool/s"),
        (WEBHOOK + 'format = "raw"', "bridge", f"arn:bridge:webhook:{PLACE}:s"),
        (WEBHOOK + 'format = "cloudevents"', "bridge", f"arn:bridge:webhook:{PLACE}:s"),
        (SCHEDULE, "events.amazonaws.com", f"arn:aws:events:{PLACE}:rule/s"),
        (MQTT, "iot.amazonaws.com", f"arn:aws:iot:{PLACE}:rule/s"),
        (MQTT + 'format = "records"', "bridge", f"arn:bridge:mqtt:{PLACE}:s"),
    ],
)  # fmt: skip
def test_naming_a_function_implies_a_statement_that_fits_the_format(read, source, service, arn):
    implied = implied_statements(read(source))

    assert implied == {
        (FUNCTION, ""): [
            {
                "Sid": "config-s", "Effect": "Allow", "Principal": {"Service": service},
                "Action": "lambda:InvokeFunction", "Resource": FUNCTION, "Condition": {"ArnLike": {"AWS:SourceArn": arn}},
            }
        ]
    }  # fmt: skip


def test_a_function_of_another_name_space_has_the_statement_and_is_asked(read):
    arn = TOPIC.replace("sns", "lambda").replace("orders", "function:made")
    settings = read(WEBHOOK.replace('"hello"', f'"{arn}:live"'))
    ((place, (statement,)),) = implied_statements(settings).items()
    assert (place, statement["Resource"]) == ((arn, "live"), f"{arn}:live")
    policies, source = ResourcePolicies(NoDocuments()), settings.sources["s"]
    permits, sender = make_permits(policies, settings), sender_of("s", source, settings)
    with pytest.raises(InvokeDenied, match=f"on resource: {arn}:live"):
        permits(sender, source.function, "POST")
    policies.set_implied(implied_statements(settings))
    permits(sender, source.function, "POST")


def test_an_explicit_source_and_one_without_a_function_imply_nothing(read):
    assert implied_statements(read(WEBHOOK + 'policy = "explicit"')) == {}
    mapped = '[mappings.m]\nsource = "s"\nfunction = "hello"\n'
    assert implied_statements(read(WEBHOOK.replace('function = "hello"\n', "") + mapped)) == {}


class Explicit:
    """Explicit sources over policies that a test writes."""

    def __init__(self, settings):
        self.settings = settings
        self.policies = ResourcePolicies(NoDocuments())
        self.intake, self.invoker = MemoryIntake(), ScriptedInvoker()
        self.permits = make_permits(self.policies, settings)
        self.webhooks = WebhookSource(
            read_routes(settings, ManualClock()), intake=self.intake, invoker=self.invoker, clock=ManualClock(),
            permits=self.permits,
        )  # fmt: skip

    async def allow(self, principal, **conditions):
        statement = make_statement(
            "s", action="lambda:InvokeFunction", principal=principal, resource=FUNCTION, conditions=conditions
        )
        await self.policies.put((FUNCTION, ""), [statement])

    async def post(self, method="POST", body=b"{}", content_type=b"application/json"):
        sent = []

        async def receive():
            return {"type": "http.request", "body": body}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": method, "raw_path": b"/hooks/s", "query_string": b"",
                 "headers": [(b"content-type", content_type)], "http_version": "1.1", "client": ("127.0.0.1", 4711)}  # fmt: skip
        await self.webhooks(scope, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"] or b"{}")


async def test_an_explicit_route_asks_the_policy_for_its_method(read):
    world = Explicit(read(WEBHOOK + 'policy = "explicit"\nmethods = ["POST", "PUT"]'))
    status, answer = await world.post()
    arn = f"arn:aws:execute-api:{PLACE}:s/$default/POST/hooks/s"
    assert status == 403
    assert answer["error"] == (
        f"apigateway.amazonaws.com ({arn}) is not authorized to perform: lambda:InvokeFunction on resource: {FUNCTION} "
        "because no resource-based policy allows the lambda:InvokeFunction action"
    )

    await world.allow("apigateway.amazonaws.com", SourceArn=f"arn:aws:execute-api:{PLACE}:s/*/POST/*")
    assert (await world.post())[0] == 202
    assert (await world.post("PUT"))[0] == 403
    await world.allow("s3.amazonaws.com")
    assert (await world.post())[0] == 403
    assert len(world.intake.stored) == 1


@pytest.mark.parametrize("kind", ["RequestResponse", "DryRun"])
async def test_nothing_runs_of_what_is_not_allowed(read, kind):
    world = Explicit(read(WEBHOOK + f'policy = "explicit"\ninvocation_type = "{kind}"'))
    world.invoker.answers["hello"] = lambda *_: b"1"
    assert (await world.post())[0] == 403
    await world.allow("apigateway.amazonaws.com", SourceAccount="123456789012")
    assert (await world.post())[0] == (200 if kind == "RequestResponse" else 204)
    assert len(world.invoker.invoked) == (1 if kind == "RequestResponse" else 0)


async def test_a_batch_is_asked_for_as_a_whole(read):
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t"}
    world = Explicit(read(WEBHOOK + 'policy = "explicit"\nformat = "cloudevents"'))
    batch = {"body": json.dumps([event]).encode(), "content_type": b"application/cloudevents-batch+json"}
    assert (await world.post(**batch))[0] == 403
    assert world.intake.stored == []
    await world.allow("bridge", SourceArn=f"arn:bridge:webhook:{PLACE}:*")
    assert (await world.post(**batch))[0] == 202
    assert len(world.intake.stored) == 1


async def test_a_running_source_stores_what_it_may_and_the_rest_waits_with_its_sender(read):
    settings = read(SCHEDULE + 'policy = "explicit"')
    world = Explicit(settings)
    intake = PermittedIntake(world.intake, sender_of("s", settings.sources["s"], settings), world.permits)
    record = Record(
        id="1",
        source="s",
        function="hello:$LATEST",
        invocation_type=InvocationType.EVENT,
        received_at=0.0,
        payload=b"1",
    )

    with pytest.raises(InvokeDenied):
        await intake.submit(record)
    await world.allow("events.amazonaws.com", SourceArn=f"arn:aws:events:{PLACE}:rule/s")
    await intake.submit(record)

    assert world.intake.stored == [record]

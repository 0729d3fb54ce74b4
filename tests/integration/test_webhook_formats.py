"""Webhook formats of a whole daemon: Powertools' resolvers and event classes behind each, as clients see their answers."""

import base64
import json
import shutil
import sysconfig
from pathlib import Path

import pytest
import urllib3

from tests.harness import WAIT_MAX_S, wait_for, write_function
from tests.integration.conftest import TELLING

pytestmark = [pytest.mark.integration]

SITE = Path(sysconfig.get_path("purelib"))
SHIPPED = ("aws_lambda_powertools", "jmespath", "typing_extensions.py")
CODE = """
import json
from aws_lambda_powertools.event_handler import ALBResolver, APIGatewayHttpResolver, APIGatewayRestResolver, Response
from aws_lambda_powertools.shared.cookies import Cookie
from aws_lambda_powertools.utilities.data_classes import event_source
from aws_lambda_powertools.utilities.data_classes.cognito_user_pool_event import PreSignUpTriggerEvent

PNG = bytes(range(256))
rest_app, http_app, alb_app = APIGatewayRestResolver(), APIGatewayHttpResolver(), ALBResolver()


def told(app):
    event = app.current_event
    sent = event.resolved_headers_field["x-id"]
    seen = {
        "method": event.http_method, "path": event.path, "body": event.decoded_body,
        "id": sent[-1] if isinstance(sent, list) else sent, "q": event.resolved_query_string_parameters.get("q"),
    }
    return Response(
        status_code=201, content_type="application/json", body=json.dumps(seen),
        headers={"X-One": "1", "X-Many": ["a", "b"]}, cookies=[Cookie("a", "1"), Cookie("b", "2")],
    )


def picture(app):
    return Response(status_code=200, content_type="image/png", body=PNG if app.current_event.raw_event else b"")


for app, path in ((rest_app, "/rest"), (http_app, "/http"), (alb_app, "/alb"), (alb_app, "/alb-many")):
    app.route(path, method=["POST"])(lambda app=app: told(app))
    app.route(path, method=["GET"])(lambda app=app: picture(app))


def rest(event, context):
    return rest_app.resolve(event, context)


def http(event, context):
    return http_app.resolve(event, context)


def alb(event, context):
    return alb_app.resolve(event, context)


def alexa(event, context):
    return {"version": "1.0", "sessionAttributes": {}, "response": {"said": event["request"]["intent"]["name"]}}


@event_source(data_class=PreSignUpTriggerEvent)
def cognito(event, context):
    if not event.request.user_attributes["email"].endswith("@example.com"):
        raise ValueError("only company addresses")
    event.response.auto_confirm_user = True
    return event.raw_event


def given(event, context):
    return json.loads(event["body"])
"""
FUNCTION = """
[functions.{name}]
code = "{code}"
handler = "app.{name}"
timeout_s = 60
memory_mb = 512
environment = {{ POWERTOOLS_SERVICE_NAME = "web" }}
"""
ROUTE = """
[sources.{name}]
type = "webhook"
path = "/{name}"
function = "{function}"
invocation_type = "RequestResponse"
format = "{format}"
verify = "none"
{more}
"""
ROUTES = [
    ("rest", "rest", "apigateway-v1", 'binary_media_types = ["image/png"]'),
    ("http", "http", "apigateway-v2", ""),
    ("alb", "alb", "alb", ""),
    ("alb-many", "alb", "alb", "multi_value_headers = true"),
    ("alexa", "alexa", "raw", ""),
    ("cognito", "cognito", "cognito", ""),
    ("given-rest", "given", "apigateway-v1", ""),
    ("given-alb", "given", "alb", ""),
]
QUEUED = """
[sources.later]
type = "webhook"
path = "/later"
format = "raw"
verify = "none"

[functions.telling]
code = "{code}"
handler = "app.handler"
timeout_s = 60
environment = {{ LEDGER = "{ledger}" }}

[mappings.later]
source = "later"
function = "telling"
shards = 4
key = "body:device"
filters = ['{{"body": {{"kind": ["alarm"]}}}}']
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """A function's folder as one ships it: with what it needs beside it."""
    folder = write_function(tmp_path_factory.mktemp("code"), CODE)
    for name in SHIPPED:
        if (SITE / name).is_dir():
            shutil.copytree(SITE / name, folder / name)
        else:
            shutil.copy(SITE / name, folder)
    folder.chmod(0o755)
    return folder


class Client:
    """urllib3 as a client of the public listener; an answer knows its headers one by one."""

    def __init__(self, base):
        self.base = base
        self.pool = urllib3.PoolManager(retries=False, timeout=WAIT_MAX_S)

    def ask(self, method, path, content=b"", headers=()):
        named = urllib3.HTTPHeaderDict(headers)
        return Answer(self.pool.request(method, self.base + path, body=content, headers=named))

    def post(self, path, content=b"", headers=()):
        return self.ask("POST", path, content, headers)


class Answer:
    def __init__(self, answer):
        self.status, self.content = answer.status, answer.data
        self.pairs = [(name.lower(), value) for name, value in answer.headers.iteritems()]
        self.headers = dict(self.pairs)

    @property
    def text(self):
        return self.content.decode()

    def json(self):
        return json.loads(self.content)

    def all(self, name):
        return [value for given, value in self.pairs if given == name]


def sent_by(daemon, *arguments):
    """Return what `bridge generate-event` prints."""
    done = daemon.cli("generate-event", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.encode()


def test_every_format_as_its_clients_see_it(daemon, code, told, tmp_path):
    functions = "".join(
        FUNCTION.format(name=name, code=code) for name in ("rest", "http", "alb", "alexa", "cognito", "given")
    )
    routes = "".join(ROUTE.format(name=n, function=f, format=form, more=more) for n, f, form, more in ROUTES)
    telling = write_function(tmp_path / "telling", TELLING)
    running = daemon(functions + routes + QUEUED.format(code=telling, ledger=told.address))
    client = Client(running.public)
    resolvers_answer(client)
    pictures_are_whole(client)
    bodies_are_events(client, running)
    malformed_answers_are_a_502(client)
    bad_input_is_one_line_and_changes_nothing(client, running)
    plain_bodies_are_a_stream(client, told)


def resolvers_answer(client):
    for path, q in (("rest", ["1", "2"]), ("http", ["1", "2"]), ("alb", ["2"]), ("alb-many", ["1", "2"])):
        headers = [("X-Id", "A"), ("Content-Type", "application/json")]
        answer = client.post(f"/{path}?q=1&q=2", b'{"id": 7}', headers)
        assert answer.status == 201, (path, answer.text)
        assert answer.json() == {"method": "POST", "path": f"/{path}", "body": '{"id": 7}', "id": "A", "q": q}, path
        assert answer.all("x-one") == ["1"], path
        cookies = [cookie.partition(";")[0] for cookie in answer.all("set-cookie")]
        many = ",".join(answer.all("x-many")).replace(" ", "")
        if path == "alb":  # single-value headers hold one: Powertools keeps the last
            assert (cookies, many) == (["b=2"], "b")
        else:
            assert (cookies, many) == (["a=1", "b=2"], "a,b"), path


def pictures_are_whole(client):
    for path in ("rest", "http", "alb", "alb-many"):
        answer = client.ask("GET", f"/{path}", headers={"Accept": "image/png"})
        assert (answer.status, answer.headers["content-type"]) == (200, "image/png"), (path, answer.text)
        assert answer.content == bytes(range(256)), path


def bodies_are_events(client, running):
    answer = client.post("/alexa", content=sent_by(running, "alexa", "--intent", "Play", "--slot", "song=Yesterday"))
    assert answer.json() == {"version": "1.0", "sessionAttributes": {}, "response": {"said": "Play"}}

    trigger = sent_by(running, "cognito", "--attribute", "email=ada@example.com")
    answer = client.post("/cognito", content=trigger)
    assert answer.status == 200
    assert answer.json() == {
        **json.loads(trigger),
        "response": {"autoConfirmUser": True, "autoVerifyEmail": False, "autoVerifyPhone": False},
    }
    refused = client.post("/cognito", content=sent_by(running, "cognito", "--attribute", "email=eve@example.org"))
    assert (refused.status, refused.json()) == (
        400,
        {"__type": "UserLambdaValidationException", "message": "PreSignUp failed with error only company addresses."},
    )


def malformed_answers_are_a_502(client):
    as_json = {"Content-Type": "application/json"}
    for path, bad in (
        (
            "given-rest",
            [{}, [], "x", {"statusCode": 200, "cookies": []}, {"statusCode": 200, "headers": {"a": "b\r\nc: d"}}],
        ),
        ("given-alb", [{}, [], "x", {"body": "x"}, {"statusCode": 200, "headers": {"a": "b\r\nc: d"}}]),
    ):
        for value in bad:
            answer = client.post(f"/{path}", json.dumps(value).encode(), as_json)
            assert answer.status == 502, (path, value)
            assert "c" not in answer.headers
        hop = {"statusCode": 200, "headers": {"Connection": "close", "Te": "x"}, "body": "ok"}
        answer = client.post(f"/{path}", json.dumps(hop).encode(), as_json)
        assert (answer.status, answer.text) == (200, "ok")
        assert "te" not in answer.headers
    returned = json.dumps({"statusCode": 200, "body": "x" * 600_000}).encode()
    large = client.post("/given-alb", returned, as_json)
    assert (large.status, len(large.content)) == (200, 600_000)


def bad_input_is_one_line_and_changes_nothing(client, running):
    upgrade = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
    }  # fmt: skip
    for path, status, options in (
        ("/alexa", 400, {"content": b""}),
        ("/alexa", 400, {"content": b"\xff\xfe"}),
        ("/alexa", 400, {"content": b"[" * 5000}),
        ("/cognito", 400, {"content": b"{}"}),
        ("/later", 400, {"content": b"no json"}),
        ("/rest?" + "&".join(["a=1"] * 1000), 400, {}),
        ("/alb?" + "&".join(["a=1"] * 1000), 400, {}),
        ("/alb", 400, {"headers": upgrade}),
        ("/alb", 413, {"content": b"x" * (1024 * 1024 + 1)}),
    ):
        answer = client.post(path, **options)
        assert answer.status == status, (path, answer.text)
        assert answer.text.count("\n") == 1
        assert list(answer.json()) == ["error"]
        assert "Traceback" not in answer.text
    assert "Traceback" not in running.log()


def plain_bodies_are_a_stream(client, told):
    """Keyed by a field of the body, filtered by another; the record is the body with our members behind it."""
    for number in range(6):
        event = {"device": f"d{number % 2}", "kind": "alarm" if number != 3 else "hum", "n": number}
        assert client.post("/later", content=json.dumps(event).encode()).status == 202
    wait_for(lambda: len(told.records()) >= 5, description="all but the hum are told")
    records = told.records()
    assert sorted(record["n"] for record in records) == [0, 1, 2, 4, 5]
    for device in ("d0", "d1"):
        of_device = [record for record in records if record["device"] == device]
        assert [record["n"] for record in of_device] == sorted(record["n"] for record in of_device)
        assert len({record["shardId"] for record in of_device}) == 1
    assert {record["eventSource"] for record in records} == {"bridge:webhook"}

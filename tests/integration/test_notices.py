"""Services that notify, against a whole daemon: SNS with AWS played by a server of ours, SDKs and vendors' bodies.

The daemon runs as ever, but `https.connect` is bent to a server on this machine: names, TLS and HTTP stay real.
"""

import asyncio
import json
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cloudevents.core.bindings.http import to_binary_event
from cloudevents.core.v1.event import CloudEvent

from tests.harness import ROOT, request, wait_for, write_function
from tests.integration.conftest import TELLING
from tests.sns_topic import HOST, Topic, body_of, certificate_pem, server_files

pytestmark = [pytest.mark.integration]

GOLDEN = ROOT / "tests" / "unit" / "events" / "golden"
CONFIG = """
[functions.telling]
code = "{code}"
handler = "app.handler"
timeout_s = 10
environment = {{ LEDGER = "{ledger}" }}

[sources.topic]
type = "webhook"
path = "/topic"
function = "telling"
format = "sns"
verify = "sns"
topics = ["{topic}"]

[sources.cloudevents]
type = "webhook"
path = "/cloudevents"
function = "telling"
format = "cloudevents"
verify = {{ scheme = "bearer", secrets = [{{ env = "TOKEN" }}] }}

[sources.uploads]
type = "webhook"
path = "/uploads"
function = "telling"
format = "s3"
verify = {{ scheme = "bearer", secrets = [{{ env = "TOKEN" }}] }}

[sources.bus]
type = "webhook"
path = "/bus"
function = "telling"
format = "eventbridge"
verify = "none"

[sources.lines]
type = "webhook"
path = "/lines"
format = "cloudwatch-logs"
verify = "none"

[mappings.lines]
source = "lines"
function = "telling"
key = "body:logGroup"
filters = ['{{"body": {{"logGroup": ["/kept"]}}}}']
"""
LAUNCHER = """
import asyncio, os, runpy, sys
from bridge.util import https

async def connect(host, context):
    return await asyncio.open_connection("127.0.0.1", int(os.environ["AWS_PORT"]), ssl=context, server_hostname=host)

https.connect = connect
sys.argv[0] = "bridge"
runpy.run_module("bridge", run_name="__main__")
"""
BEARER = {"authorization": "Bearer token"}


class FakeSns:
    """AWS's host of a region: serves the certificate and takes confirmations, over TLS, in a thread."""

    def __init__(self, files: Path) -> None:
        self.asked: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files)
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context), self._loop
        ).result(60)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head.split(" ")[1])
        body = certificate_pem() if ".pem " in head else b"<ConfirmSubscriptionResponse/>"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    def close(self) -> None:
        async def stop() -> None:
            self._server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()


@pytest.fixture
def sns(tmp_path):
    authority, server = server_files(tmp_path, HOST)
    fake = FakeSns(server)
    fake.authority = authority
    yield fake
    fake.close()


@pytest.fixture
def running(daemon, told, sns, tmp_path):
    launcher = tmp_path / "launcher.py"
    launcher.write_text(LAUNCHER)
    code = write_function(tmp_path / "code", TELLING)
    config = CONFIG.format(code=code, ledger=told.address, topic=Topic().arn)
    environment = {"AWS_PORT": str(sns.port), "SSL_CERT_FILE": str(sns.authority), "TOKEN": "token"}
    return daemon(config, command=(str(launcher),), **environment)


def post(running, path, body, headers=None):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request("POST", running.public + path, body=body, headers=headers or {})


def test_a_topic_subscribes_posts_and_is_told_apart_from_a_stranger(running, sns, told):
    topic, stranger = Topic(), Topic("stranger")
    confirmation = topic.confirmation()

    assert post(running, "/topic", body_of(confirmation), topic.headers(confirmation)).json() == {"confirmed": True}
    messages = [topic.notification(f'{{"id": {number}}}') for number in range(3)]
    messages.append(Topic(version="1").notification('{"id": 3}'))
    ids = [post(running, "/topic", body_of(each), topic.headers(each)).json()["id"] for each in messages]
    again = post(running, "/topic", body_of(messages[0]), topic.headers(messages[0]))
    forged = post(running, "/topic", body_of(messages[0] | {"Message": "{}"}))
    other = post(running, "/topic", body_of(stranger.notification()))
    bad = post(running, "/topic", b"{")

    assert {"id": ids[0], "duplicate": True} == again.json()
    assert [401, 403, 401] == [forged.status, other.status, bad.status]
    wait_for(lambda: len(told()) == 4)
    assert {each["MessageId"] for each in messages} == {event["Records"][0]["Sns"]["MessageId"] for event in told()}
    assert [topic.subscription] * 4 == [event["Records"][0]["EventSubscriptionArn"] for event in told()]
    certificates = [target for target in sns.asked if target.endswith(".pem")]
    confirmed = [target for target in sns.asked if "ConfirmSubscription" in target]
    assert (1, 1, 2) == (len(certificates), len(confirmed), len(sns.asked))


def test_what_senders_post_is_what_the_function_is_told(running, told):
    sent = to_binary_event(CloudEvent({"source": "/here", "type": "t", "id": "A1", "specversion": "1.0"}, {"id": 1}))
    minio = (GOLDEN / "vendors" / "minio-put.json").read_bytes()
    envelope = (GOLDEN / "powertools-python" / "eventBridgeEvent.json").read_bytes()

    statuses = [
        post(running, "/cloudevents", sent.body, sent.headers | BEARER).status,
        post(running, "/uploads", minio, BEARER).status,
        post(running, "/bus", envelope).status,
        post(running, "/lines", {"logGroup": "/dropped", "logEvents": ["a"]}).status,
        post(running, "/lines", {"logGroup": "/kept", "logEvents": ["b"]}).status,
        post(running, "/uploads", minio).status,
        post(running, "/uploads", b"[]", BEARER).status,
        post(running, "/cloudevents", b"{}", BEARER).status,
        post(running, "/bus", b"\xff").status,
        post(running, "/lines", b"{}").status,
    ]

    asked = request("OPTIONS", running.public + "/cloudevents", headers={"webhook-request-origin": "here.example"})
    assert (200, "here.example") == (asked.status, asked.headers["webhook-allowed-origin"])
    assert [202] * 5 + [401] + [400] * 4 == statuses
    wait_for(lambda: len(told()) == 4)
    events = told()
    assert json.loads(envelope) in events
    (cloudevent,) = [event for event in events if event.get("specversion")]
    assert ("A1", {"id": 1}) == (cloudevent["id"], cloudevent["data"])
    records = {record["eventSource"]: record for event in events for record in event.get("Records", ())}
    assert {"aws:s3", "bridge:webhook"} == records.keys()
    assert "2024/my+report%2Bfinal+%C3%BC.md" == records["aws:s3"]["s3"]["object"]["key"]
    assert "data" in records["bridge:webhook"]["awslogs"]


@pytest.mark.parametrize("kind", ["cloudevents", "s3", "eventbridge", "cloudwatch-logs"])
def test_what_generate_event_prints_as_sent_is_taken(running, told, kind):

    paths = {"s3": "/uploads", "eventbridge": "/bus", "cloudwatch-logs": "/lines", "cloudevents": "/cloudevents"}
    options = ["--log-group", "/kept"] if kind == "cloudwatch-logs" else []
    made = subprocess.run(
        [sys.executable, "-m", "bridge", "generate-event", kind, "--as-sent", *options],
        check=True, capture_output=True, cwd=ROOT,
    ).stdout  # fmt: skip

    answer = post(running, paths[kind], made, BEARER | {"content-type": "application/json"})

    assert 202 == answer.status
    wait_for(lambda: len(told()) == 1)

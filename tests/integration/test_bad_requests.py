"""Bad requests at the door, over real sockets: the right status, one JSON line, nothing stored, still serving.

1 framing  2 paths, methods, queries  3 bodies  4 signatures  5 many and rude clients
(Slowloris in its six forms and the limits of the head: tests/unit/util/test_listener.py.)
"""

import asyncio
import contextlib
import gzip
import hmac
import json

import pytest
import pytest_asyncio

from bridge.core.invocation import InvocationType
from bridge.sources.push.routes import Route
from bridge.sources.push.signatures import make_verifier
from bridge.sources.push.webhook import WebhookSource
from bridge.testing.clock import ManualClock
from bridge.testing.push import MemoryIntake, ScriptedInvoker
from bridge.util.listener import Listener, ListenerLimits

pytestmark = pytest.mark.integration

CLOCK = ManualClock()
NOW = int(CLOCK.time())
SECRET = b"It's a Secret to Everybody"


class Door:
    """A listener with an open route, a signed one, one that answers, and one for timed signatures."""

    def __init__(self):
        self.intake = MemoryIntake()
        self.invoker = ScriptedInvoker()
        self.invoker.answers["echo"] = lambda _, payload: payload
        anyone = make_verifier("none", clock=CLOCK)
        github = make_verifier("github", secrets=[SECRET, "old"], clock=CLOCK)
        stripe = make_verifier("stripe", secrets=[SECRET], clock=CLOCK)
        sync = InvocationType.REQUEST_RESPONSE
        routes = [
            Route(name="open", path="/open", function="f", verifier=anyone, body_max_bytes=100_000),
            Route(name="github", path="/github", function="f", verifier=github),
            Route(name="stripe", path="/stripe", function="f", verifier=stripe),
            Route(name="echo", path="/echo", function="echo", verifier=anyone, invocation_type=sync),
        ]
        self.source = WebhookSource(routes, intake=self.intake, invoker=self.invoker, clock=CLOCK)
        limits = ListenerLimits(connections_max=300, header_s=600, request_s=600)
        self.listener = Listener(self.source, name="door", host="127.0.0.1", port=0, limits=limits)

    async def connect(self):
        return await asyncio.open_connection("127.0.0.1", self.listener.port)

    async def raw(self, data):
        """Send bytes on a connection of their own; return (status, headers, body) of the first answer."""
        reader, writer = await self.connect()
        try:
            writer.write(data)
            return await answer_of(reader)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def post(self, path="/open", body=b"{}", headers=b"", method="POST"):
        head = b"%b %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" % (
            method.encode(),
            path.encode(),
        )
        return await self.raw(head + headers + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))

    async def event_of(self, path="/open", **options):
        """Post what must be stored; return the event."""
        before = len(self.intake.stored)
        status, _, body = await self.post(path, **options)
        assert status == 202, (status, body)
        assert len(self.intake.stored) == before + 1
        return json.loads(self.intake.stored[-1].payload)

    async def refuses(self, answer, status, text=""):
        """Assert a refusal in one line, nothing stored, and that the next request is served."""
        assert answer[0] == status, answer
        assert answer[1]["content-type"] == "application/json"
        assert answer[2].count(b"\n") == 1
        assert text in json.loads(answer[2])["error"]
        assert self.intake.stored == []
        assert (await self.post())[0] == 202
        self.intake.stored.clear()


async def answer_of(reader, *, head_only=False):
    async with asyncio.timeout(60):
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(item.split(": ", 1) for item in lines if item)
        body = b"" if head_only else await reader.readexactly(int(headers.get("content-length", 0)))
        return int(line.split()[1]), headers, body


@pytest_asyncio.fixture
async def door():
    door = Door()
    await door.listener.open()
    yield door
    await door.listener.close(0.2)


# --- 1 framing --------------------------------------------------------------------------------------------------------

FRAMING = {
    "Content-Length negative": (b"Content-Length: -1\r\n\r\n", 400),
    "Content-Length twice": (b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400),
    "Content-Length and chunked": (b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "header of 9000 bytes": (b"X: " + b"y" * 9000 + b"\r\n\r\n", 431),
    "129 headers": (b"X: y\r\n" * 128 + b"Content-Length: 0\r\n\r\n", 431),
    "chunk that is none": (b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
}


@pytest.mark.parametrize("name", FRAMING)
async def test_framing(door, name):
    tail, status = FRAMING[name]
    await door.refuses(await door.raw(b"POST /open HTTP/1.1\r\nHost: x\r\n" + tail), status)


@pytest.mark.parametrize("host", [b"", b"Host:\r\n", b"Host: a\r\nHost: b\r\n", b"Host: a b\r\n", b"Host: a/..\r\n"])
async def test_host(door, host):
    await door.refuses(await door.raw(b"POST /open HTTP/1.1\r\n" + host + b"Content-Length: 2\r\n\r\n{}"), 400, "Host")


async def test_expect_100_continue(door):
    reader, writer = await door.connect()
    writer.write(b"POST /open HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"{}")
    assert (await answer_of(reader))[0] == 202
    writer.write(b"POST /open HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100001\r\n\r\n")
    assert (await answer_of(reader))[0] == 413
    writer.close()


async def test_pipelining(door):
    reader, writer = await door.connect()
    good = b"POST /open HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    writer.write(good + good.replace(b"/open", b"/none") + good)
    assert [(await answer_of(reader))[0] for _ in range(3)] == [202, 404, 202]
    assert len(door.intake.stored) == 2
    writer.close()


# --- 2 paths, methods, queries ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/none", "//open", "/open/", "/%2e%2e/open", "/./open", "/open%00", "/%6fpen", "/open;x"]
)
async def test_unknown_paths(door, path):
    await door.refuses(await door.post(path), 404, "no such path")


async def test_a_path_of_8_kb(door):
    await door.refuses(await door.post("/" + "a" * 8000), 414)


@pytest.mark.parametrize("method", ["GET", "PUT", "TRACE", "OPTIONS", "DELETE", "PATCH"])
async def test_wrong_methods(door, method):
    answer = await door.post(method=method)
    assert answer[1]["allow"] == "POST"
    await door.refuses(answer, 405, "only POST here")


async def test_head_is_refused_without_a_body(door):
    reader, writer = await door.connect()
    writer.write(b"HEAD /open HTTP/1.1\r\nHost: x\r\n\r\nHEAD /echo HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await answer_of(reader, head_only=True))[0] == 405
    status, headers, _ = await answer_of(reader, head_only=True)
    assert (status, int(headers["content-length"]) > 100) == (200, True)
    writer.close()


async def test_an_unknown_method(door):
    await door.refuses(await door.post(method="BREW"), 501)


async def test_1000_query_pairs(door):
    await door.refuses(await door.post("/open?" + "&".join(f"a={n}" for n in range(1000))), 400, "256 query parameters")


async def test_a_query_that_is_no_utf_8(door):
    event = await door.event_of("/open?a=%FF%FE&b=%C3%A9")
    assert event["rawQueryString"] == "a=%FF%FE&b=%C3%A9"
    assert event["queryStringParameters"] == {"a": "\ufffd\ufffd", "b": "é"}


async def test_duplicate_headers_and_cookies(door):
    event = await door.event_of(headers=b"X-A: 1\r\nx-a: 2\r\nCookie: a=1; b=2\r\nCookie: a=3\r\nX-B: \xff\r\n")
    assert event["headers"]["x-a"] == "1,2"
    assert event["headers"]["x-b"] == "\xff"
    assert event["cookies"] == ["a=1", "b=2", "a=3"]
    assert "cookie" not in event["headers"]


# --- 3 bodies ---------------------------------------------------------------------------------------------------------


async def test_an_empty_body_is_fine(door):
    event = await door.event_of(body=b"")
    assert "body" not in event
    assert event["isBase64Encoded"] is False


async def test_the_limit_and_one_more(door):
    assert len((await door.event_of(body=b"x" * 100_000))["body"]) == 100_000
    door.intake.stored.clear()
    await door.refuses(await door.post(body=b"x" * 100_001), 413, "100000 bytes")


async def test_chunked_over_the_limit(door):
    head = b"POST /open HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (4096, b"x" * 4096) for _ in range(25))
    await door.refuses(await door.raw(head + chunks + b"0\r\n\r\n"), 413)


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"zstd", b"x-unknown"])
async def test_encoded_bodies_are_passed_on_and_never_unpacked(door, encoding):
    bomb = gzip.compress(b"0" * 50_000_000)
    event = await door.event_of(body=bomb, headers=b"Content-Encoding: " + encoding + b"\r\n")
    assert event["isBase64Encoded"] is True
    assert len(event["body"]) < 70_000


JSON = {
    "depth 255": b"[" * 255 + b"]" * 255,
    "depth 1024": b"[" * 1024 + b"]" * 1024,
    "depth 50,000": b"[" * 50_000 + b"]" * 50_000,
    "integer above 64 bits": b"123456789012345678901234567890",
    "NaN": b"[NaN, Infinity]",
    "BOM": b'\xef\xbb\xbf{"a":1}',
    "NUL": b'{"a":"\x00"}',
    "escaped lone surrogate": b'{"a":"\\ud800"}',
    "duplicate keys": b'{"a":1,"a":2}',
    "not JSON": b"<xml/>",
}


@pytest.mark.parametrize("name", JSON)
async def test_odd_json_reaches_the_handler_as_the_text_it_was(door, name):
    event = await door.event_of(body=JSON[name])
    assert event["isBase64Encoded"] is False
    assert event["body"].encode() == JSON[name]


@pytest.mark.parametrize("body", [b"\x00\xff\xfe", b'{"a":"\xed\xa0\x80"}', bytes(range(256))])
async def test_bytes_that_are_no_text_are_base64(door, body):
    import base64

    event = await door.event_of(body=body)
    assert base64.b64decode(event["body"]) == body


async def test_multipart(door):
    body = b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n\xff\r\n--x--\r\n"
    head = b"POST /open HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    assert (await door.raw(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)))[0] == 202
    assert json.loads(door.intake.stored[0].payload)["isBase64Encoded"] is True


# --- 4 signatures -----------------------------------------------------------------------------------------------------


def github(body=b"{}", secret=SECRET):
    return "sha256=" + hmac.new(secret, body, "sha256").hexdigest()


GOOD = github()
FORGED = {
    "wrong": github(secret=b"guess"),
    "cut": GOOD[:-1],
    "longer": GOOD + "0",
    "upper case": GOOD.upper(),
    "upper hex": "sha256=" + GOOD[7:].upper(),
    "without prefix": GOOD[7:],
    "sha1": "sha1=" + hmac.new(SECRET, b"{}", "sha1").hexdigest(),
    "empty": "",
    "two in one": f"{GOOD}, {GOOD}",
}


@pytest.mark.parametrize("name", FORGED)
async def test_forged_signatures(door, name):
    headers = b"X-Hub-Signature-256: %b\r\n" % FORGED[name].encode()
    await door.refuses(await door.post("/github", headers=headers), 401, "refused")


async def test_no_signature_another_scheme_s_and_a_changed_body(door):
    await door.refuses(await door.post("/github"), 401, "is missing")
    await door.refuses(await door.post("/github", headers=b"Stripe-Signature: t=1,v1=2\r\n"), 401, "is missing")
    headers = b"X-Hub-Signature-256: %b\r\n" % GOOD.encode()
    await door.refuses(await door.post("/github", body=b"{ }", headers=headers), 401, "does not match")
    await door.refuses(await door.post("/github", headers=headers * 2), 401, "more than once")


async def test_a_replayed_delivery_is_not_handled_twice(door):
    headers = b"X-Hub-Signature-256: %b\r\nX-GitHub-Delivery: d-1\r\n" % GOOD.encode()
    first = json.loads((await door.post("/github", headers=headers))[2])
    status, _, body = await door.post("/github", headers=headers)
    assert (status, json.loads(body)) == (202, {**first, "duplicate": True})
    assert len(door.intake.stored) == 1


def stripe(time):
    return b"Stripe-Signature: t=%b,v1=%b\r\n" % (time, hmac.new(SECRET, time + b".{}", "sha256").hexdigest().encode())


@pytest.mark.parametrize(
    "time", [b"", b"now", b"%d.5" % NOW, b"-%d" % NOW, b"1" + b"0" * 20, b"%d" % (NOW - 301), b"%d" % (NOW + 301)]
)
async def test_signed_times_that_are_not_now(door, time):
    await door.refuses(await door.post("/stripe", headers=stripe(time)), 401, "timestamp")


async def test_two_signatures_one_good(door):
    good = stripe(b"%d" % NOW)
    await door.event_of("/stripe", headers=good.replace(b",v1=", b",v1=" + b"0" * 64 + b",v1="))


# --- 5 many and rude clients ------------------------------------------------------------------------------------------


async def test_a_client_gone_before_the_answer_leaves_a_whole_event_or_none(door, wait_until):
    door.intake.gate.clear()
    reader, writer = await door.connect()
    writer.write(b"POST /open HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n1234")
    await wait_until(lambda: door.intake.waiting == 1, description="the event is being stored")
    writer.transport.abort()
    door.intake.gate.set()
    await wait_until(lambda: len(door.intake.stored) == 1, description="the event is stored")
    for cut in (b"POST /open HT", b"POST /open HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n12"):
        _, writer = await door.connect()
        writer.write(cut)
        await writer.drain()
        writer.transport.abort()
    await wait_until(lambda: door.listener.connections == 0, description="the connections are gone")
    assert len(door.intake.stored) == 1


@pytest.mark.slow
async def test_5000_connections_are_limited_and_the_ones_within_are_served(door, wait_until):
    inside = [await door.connect() for _ in range(300)]
    for _ in range(47):
        outside = await asyncio.gather(*(door.connect() for _ in range(100)))
        for _, writer in outside:
            writer.close()
    reader, writer = inside[0]
    writer.write(b"POST /open HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    assert (await answer_of(reader))[0] == 202
    for _, writer in inside:
        writer.close()
    await wait_until(lambda: door.listener.connections == 0, 120, "all connections are gone")
    assert (await door.post())[0] == 202


async def test_garbage_of_every_length_never_stores_and_never_stops_the_listener(door):
    import random

    rng = random.Random(7)
    good = b"POST /open HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n" + b"x" * 20
    for _ in range(100):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        reader, writer = await door.connect()
        writer.write(bytes(data))
        writer.write_eof()
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionError):
                await reader.read()
        writer.close()
    stored = len(door.intake.stored)  # a changed length may make a whole request
    assert stored < 10
    assert (await door.post())[0] == 202

"""The listener over real sockets: limits, deadlines, framing, pipelining, draining, and answers that are never half.

Slowloris forms: 1 connect and say nothing, 2 half a request line, 3 dribbled headers, 4 a head without its body,
5 a dribbled body, 6 an answer that is never read. All with deadlines of a fraction of a second.
"""

import asyncio
import contextlib
import json
import ssl
import subprocess

import pytest

from bridge.util import http_protocol, telemetry
from bridge.util.asgi import HEADER_NAMES, BodyTooLarge, ClientGone, ConnectionAbandoned, read_body, respond
from bridge.util.listener import Listener, ListenerLimits

QUICK = ListenerLimits(header_s=0.15, request_s=0.3, keepalive_s=0.15)
QUICK_BODY = ListenerLimits(header_s=60, request_s=0.3, keepalive_s=60)
"""Where a head must arrive in time, however late the machine gives this process a turn."""
QUICK_IDLE = ListenerLimits(header_s=60, request_s=60, keepalive_s=0.15)


class App:
    """Echoes; paths name other behaviours."""

    def __init__(self):
        self.seen = []
        self.gone = 0
        self.cancelled = 0
        self.gate = asyncio.Event()

    async def __call__(self, scope, receive, send):
        path = scope["path"]
        if path == "/early":
            await respond(send, 404, b'{"error":"no"}\n')
            return
        try:
            body = await read_body(receive, limit=200_000)
        except ClientGone:
            self.gone += 1
            return
        except BodyTooLarge:
            await respond(send, 413, b'{"error":"large"}\n')
            return
        self.seen.append((scope, body))
        if path == "/raise":
            raise RuntimeError("boom")
        if path == "/abandon":
            raise ConnectionAbandoned
        if path == "/unanswered":
            return
        if path == "/wait":
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if path == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            await self.gate.wait()
            await send({"type": "http.response.body", "body": b"two", "more_body": True})
            await send({"type": "http.response.body"})
            return
        if path == "/plain":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})
            return
        if path == "/evil":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"a\r\nset-cookie: b")]})
            return
        if path == "/big":
            body = b"x" * 30_000_000
        if path == "/204":
            await respond(send, 204, b"", ())
            return
        await respond(send, 200, body, ((b"content-type", b"text/plain"),))


@contextlib.asynccontextmanager
async def serving(app=None, **options):
    listener = Listener(app or App(), name="test", host="127.0.0.1", port=0, **options)
    await listener.open()
    try:
        yield listener
    finally:
        await listener.close(0.2)


class Client:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, *, head_only=False):
        """Return (status, headers, body) of one answer."""
        async with asyncio.timeout(60):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *lines = head.split("\r\n")
            headers = dict(item.split(": ", 1) for item in lines if item)
            body = b""
            if headers.get("transfer-encoding") == "chunked":
                while size := int(await self.reader.readline(), 16):
                    body += await self.reader.readexactly(size)
                    await self.reader.readline()
                await self.reader.readline()
            elif not head_only:
                body = await self.reader.readexactly(int(headers.get("content-length", 0)))
            return int(line.split()[1]), headers, body

    async def rest(self):
        """Return everything until the other side closes."""
        async with asyncio.timeout(60):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


@contextlib.asynccontextmanager
async def connected(listener):
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(Exception):
            await writer.wait_closed()


async def ask(listener, data):
    async with connected(listener) as client:
        await client.send(data)
        return await client.answer()


def post(path="/", body=b"hello", *headers):
    lines = b"".join(h + b"\r\n" for h in headers)
    return b"POST %b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (path.encode(), lines, len(body), body)


def later(listener, seconds):
    """Let every connection look at its deadlines as if `seconds` had passed."""
    for connection in list(listener._hub.connections):
        connection.check(asyncio.get_running_loop().time() + seconds)


def refused(answer, status):
    """Assert one JSON line with the reason, and that the connection is closed after it."""
    assert answer[0] == status, answer
    assert answer[1]["content-type"] == "application/json"
    assert answer[1]["connection"] == "close"
    assert answer[2].endswith(b"\n")
    assert answer[2].count(b"\n") == 1
    assert set(json.loads(answer[2])) == {"error"}


# --- the ordinary -----------------------------------------------------------------------------------------------------


async def test_a_connection_carries_many_requests_and_answers_have_a_date_and_no_server():
    async with serving() as listener, connected(listener) as client:
        for _ in range(3):
            await client.send(post())
            status, headers, body = await client.answer()
            assert (status, body) == (200, b"hello")
            assert "date" in headers
            assert "server" not in headers
            assert "connection" not in headers


async def test_scope_holds_what_was_sent():
    app = App()
    async with serving(app) as listener:
        await ask(listener, b"GET /a%20b?x=%FF&y HTTP/1.1\r\nHost: x:1\r\nX-A: 1\r\nx-a: \xff2\r\n\r\n")
        scope = app.seen[0][0]
        assert scope["method"] == "GET"
        assert scope["raw_path"] == b"/a%20b"
        assert scope["path"] == "/a b"
        assert scope["query_string"] == b"x=%FF&y"
        assert scope["headers"] == [(b"host", b"x:1"), (b"x-a", b"1"), (b"x-a", b"\xff2")]
        assert scope["client"][0] == "127.0.0.1"
        assert scope["http_version"] == "1.1"


async def test_answers_and_connections_are_counted():
    counter = telemetry.HTTP_REQUESTS.labels(listener="test", status="200")
    gauge = telemetry.HTTP_CONNECTIONS.labels(listener="test")
    before = counter._value.get()
    async with serving() as listener, connected(listener) as client:
        await client.send(post())
        await client.answer()
        assert counter._value.get() == before + 1
        assert gauge._value.get() == 1
        assert listener.connections == 1
    assert gauge._value.get() == 0


@pytest.mark.parametrize("chunk", [1, 7, 100])
async def test_a_request_may_come_in_pieces(chunk):
    async with serving() as listener, connected(listener) as client:
        data = post("/", b"piecemeal", b"X-Long: " + b"y" * 100)
        for start in range(0, len(data), chunk):
            await client.send(data[start : start + chunk])
        assert (await client.answer())[2] == b"piecemeal"


async def test_chunked_requests_and_trailers_that_are_no_headers():
    app = App()
    async with serving(app) as listener:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer = await ask(listener, head + b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Signature: late\r\n\r\n")
        assert answer[2] == b"abcde"
        assert b"x-signature" not in dict(app.seen[0][0]["headers"])


async def test_expect_100_continue():
    async with serving() as listener, connected(listener) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"ok")
        assert (await client.answer())[2] == b"ok"


async def test_expect_100_continue_is_not_given_to_who_is_refused():
    async with serving() as listener, connected(listener) as client:
        await client.send(b"POST /early HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (await client.answer())[0] == 404


async def test_head_has_the_length_and_no_body():
    async with serving() as listener, connected(listener) as client:
        await client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        status, headers, _ = await client.answer(head_only=True)
        assert (status, headers["content-length"]) == (200, "3")
        await client.send(post())
        assert (await client.answer())[2] == b"hello"


async def test_204_has_no_length():
    async with serving() as listener:
        status, headers, body = await ask(listener, post("/204"))
        assert (status, body) == (204, b"")
        assert "content-length" not in headers


async def test_a_stream_leaves_piece_by_piece():
    app = App()
    async with serving(app) as listener, connected(listener) as client:
        await client.send(post("/stream"))
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head
        assert await client.reader.readexactly(8) == b"3\r\none\r\n"
        app.gate.set()
        assert await client.reader.readexactly(13) == b"3\r\ntwo\r\n0\r\n\r\n"
        await client.send(post("/plain"))
        assert (await client.answer())[2] == b"ok"


async def test_http_1_0_is_answered_and_closed():
    async with serving() as listener, connected(listener) as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.answer())[1]["connection"] == "close"
        assert await client.rest() == b""


async def test_a_client_that_has_only_closed_its_sending_half_gets_its_answer(wait_until):
    app = App()
    async with serving(app) as listener, connected(listener) as client:
        await client.send(post("/wait"))
        client.writer.write_eof()
        await wait_until(lambda: app.seen, description="the request is under way")
        app.gate.set()
        assert (await client.answer())[2] == b"hello"
        assert await client.rest() == b""


async def test_a_client_that_leaves_a_stream_is_let_go_at_once(wait_until):
    app = App()
    async with serving(app) as listener, connected(listener) as client:
        await client.send(post("/stream"))
        await client.reader.readuntil(b"one\r\n")
        client.writer.write_eof()
        await wait_until(lambda: listener.connections == 0, description="the stream is closed")
        app.gate.set()


async def test_connection_close_is_kept():
    async with serving() as listener, connected(listener) as client:
        await client.send(post("/", b"x", b"Connection: close"))
        assert (await client.answer())[1]["connection"] == "close"
        assert await client.rest() == b""


async def test_the_names_of_headers_are_kept_as_they_were_sent_too():
    app = App()
    async with serving(app) as listener, connected(listener) as client:
        for spelling in (b"X-Id", b"x-ID"):
            await client.send(post("/", b"x", spelling + b": 1"))
            assert (await client.answer())[0] == 200
    for (scope, _), spelling in zip(app.seen, (b"X-Id", b"x-ID"), strict=True):
        assert scope["headers"] == [
            (name.lower(), scope["headers"][n][1]) for n, name in enumerate(scope[HEADER_NAMES])
        ]
        assert spelling in scope[HEADER_NAMES]
        assert (b"x-id", b"1") in scope["headers"]


@pytest.mark.parametrize("offer", [b"h2c", b"websocket"])
async def test_an_offer_to_upgrade_is_declined_and_the_body_kept(offer):
    app = App()
    async with serving(app) as listener, connected(listener) as client:
        upgrade = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + offer, b"HTTP2-Settings: AAMAAABk")
        await client.send(post("/", b"kept", *upgrade))
        assert (await client.answer())[2] == b"kept"
        assert dict(app.seen[0][0]["headers"]) == {b"host": b"x", b"connection": b"", b"content-length": b"4"}
        assert app.seen[0][0][HEADER_NAMES] == [b"Host", b"Connection", b"Content-Length"]
        await client.send(post())
        assert (await client.answer())[2] == b"hello"


async def test_an_application_that_raises_answers_500_and_one_that_is_silent_too():
    async with serving() as listener:
        refused(await ask(listener, post("/raise")), 500)
        refused(await ask(listener, post("/unanswered")), 500)
        assert (await ask(listener, post()))[0] == 200


async def test_a_header_that_would_break_the_lines_is_never_sent():
    async with serving() as listener, connected(listener) as client:
        await client.send(post("/evil"))
        assert b"set-cookie" not in await client.rest()


async def test_an_abandoned_request_gets_no_answer():
    async with serving() as listener, connected(listener) as client:
        await client.send(post("/abandon"))
        assert await client.rest() == b""


# --- framing and limits -----------------------------------------------------------------------------------------------

BAD = {
    "Content-Length negative": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    "Content-Length no number": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: five\r\n\r\n", 400),
    "Content-Length with plus": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello", 400),
    "Content-Length of 23 digits": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 23 + b"\r\n\r\n", 400),
    "Content-Length twice": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
    "Content-Length with Transfer-Encoding": (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "Transfer-Encoding with Content-Length": (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
        400,
    ),
    "Transfer-Encoding not chunked last": (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        400,
    ),
    "Transfer-Encoding unknown": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "chunk size no number": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "empty Host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "Host with a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "Host with user": (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    "header of 9000 bytes": (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 9000 + b"\r\n\r\n", 431),
    "header of 200 kB": (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000, 431),
    "129 headers": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 128 + b"\r\n", 431),
    "70 kB of headers": (b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"X: " + b"y" * 6990 + b"\r\n") * 10 + b"\r\n", 431),
    "path of 8 kB": (b"GET /" + b"a" * 8000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    "target of 20 kB": (b"GET /?" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    "target without end": (b"GET /" + b"a" * 200_000, 414),
    "path not ASCII": (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "target no URL": (b"GET :/x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "unknown method": (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    "CONNECT": (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501),
    "TLS on a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 501),
    "HTTP/2 at once": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "HTTP/9.9": (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 400),
    "line feeds alone": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "folded header": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400),
    "space before the colon": (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    "NUL in a header": (b"GET / HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n", 400),
    "trailer without end": (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"y" * 400_000,
        431,
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_framing_is_refused_in_one_line_and_the_listener_serves_on(name):
    data, status = BAD[name]
    app = App()
    async with serving(app) as listener:
        refused(await ask(listener, data), status)
        assert app.seen == []
        assert (await ask(listener, post()))[0] == 200


async def test_a_refusal_says_what_is_wrong_with_the_request():
    data, _ = BAD["Transfer-Encoding with Content-Length"]
    async with serving() as listener:
        said = json.loads((await ask(listener, data))[2])["error"]
    assert said == "the request is not HTTP/1.1: Content-Length can't be present with Transfer-Encoding"


async def test_128_headers_and_a_header_of_8190_bytes_are_taken():
    async with serving() as listener:
        assert (await ask(listener, b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 127 + b"\r\n"))[0] == 200
        assert (await ask(listener, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 8189 + b"\r\n\r\n"))[0] == 200
        refused(await ask(listener, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 8190 + b"\r\n\r\n"), 431)


async def test_a_refusal_survives_a_body_that_is_still_being_sent():
    async with serving() as listener, connected(listener) as client:
        await client.send(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 300_000)
        status, headers, body = await client.answer()
        assert (status, headers["connection"], body) == (404, "close", b'{"error":"no"}\n')


async def test_a_chunked_body_over_the_limit_is_refused_while_it_comes():
    async with serving() as listener, connected(listener) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            await client.send(b"%x\r\n%b\r\n" % (100_000, b"x" * 100_000))
        status, headers, body = await client.answer()
        assert (status, headers["connection"], body) == (413, "close", b'{"error":"large"}\n')


async def test_connections_over_the_limit_get_503_and_those_open_go_on():
    async with serving(limits=ListenerLimits(connections_max=2)) as listener:
        async with connected(listener) as first, connected(listener) as second, connected(listener) as third:
            answer = await third.answer()
            refused(answer, 503)
            assert answer[1]["retry-after"] == "1"
            for client in (first, second):
                await client.send(post())
                assert (await client.answer())[0] == 200
        assert (await ask(listener, post()))[0] in (200, 503)


# --- pipelining -------------------------------------------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_order():
    async with serving() as listener, connected(listener) as client:
        await client.send(b"".join(post("/", b"%d" % n) for n in range(10)))
        assert [(await client.answer())[2] for _ in range(10)] == [b"%d" % n for n in range(10)]


async def test_too_many_pipelined_requests_are_answered_as_far_as_they_were_taken():
    app = App()
    async with serving(app) as listener, connected(listener) as client:
        await client.send(b"".join(post("/", b"%d" % n) for n in range(100)))
        answers = []
        while not answers or answers[-1][0] == 200:
            answers.append(await client.answer())
        assert [body for _, _, body in answers[:-1]] == [body for _, body in app.seen]
        refused(answers[-1], 503)
        assert await client.rest() == b""


async def test_a_bad_request_behind_a_good_one_is_refused_after_the_good_one_s_answer():
    app = App()
    async with serving(app) as listener, connected(listener) as client:
        await client.send(post("/wait") + b"BREW / HTTP/1.1\r\n\r\n")
        app.gate.set()
        assert (await client.answer())[0] == 200
        refused(await client.answer(), 501)


async def test_a_pipelined_head_that_dribbles_does_not_cut_the_answer_before_it(wait_until):
    app = App()
    async with serving(app) as listener, connected(listener) as client:
        await client.send(post("/wait") + b"POST /late HT")
        await wait_until(lambda: app.seen, description="the first request is under way")
        later(listener, 100)
        app.gate.set()
        assert (await client.answer())[0] == 200
        refused(await client.answer(), 408)


# --- deadlines --------------------------------------------------------------------------------------------------------


async def test_slowloris_1_a_connection_that_says_nothing_is_closed():
    async with serving(limits=QUICK) as listener, connected(listener) as client:
        assert await client.rest() == b""


@pytest.mark.parametrize("start", [b"G", b"POST /x HT", b"POST /x HTTP/1.1\r\nHo"])
async def test_slowloris_2_half_a_head_is_refused(start):
    async with serving(limits=QUICK) as listener, connected(listener) as client:
        await client.send(start)
        refused(await client.answer(), 408)


async def dribble(client, data):
    """Send `data` again and again: the pace of the attack, not a wait for something."""
    with contextlib.suppress(ConnectionError):
        while True:
            await client.send(data)
            await asyncio.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"POST /x HTTP/1.1\r\nHost: x\r\n", b"X: y\r\n"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", b"y"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\ny\r\n"),
    ],
    ids=["3 headers", "5 body", "5 chunked body"],
)
async def test_slowloris_3_and_5_dribbling_does_not_extend_the_deadline(start, drop):
    app = App()
    async with serving(app, limits=QUICK) as listener, connected(listener) as client:
        await client.send(start)
        dribbler = asyncio.create_task(dribble(client, drop))
        refused(await client.answer(), 408)
        dribbler.cancel()
        await asyncio.gather(dribbler, return_exceptions=True)
        assert app.seen == []


@pytest.mark.slow
async def test_slowloris_4_a_head_without_its_body_is_refused_and_the_application_let_go():
    app = App()
    async with serving(app, limits=QUICK_BODY) as listener, connected(listener) as client:
        await client.send(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        refused(await client.answer(), 408)
        assert app.gone == 1
        assert app.seen == []


@pytest.mark.slow
async def test_slowloris_6_an_answer_that_is_never_read_is_cut(wait_until):
    async with serving(limits=QUICK_BODY) as listener, connected(listener) as client:
        client.writer.transport.pause_reading()
        await client.send(post("/big"))
        await wait_until(lambda: listener.connections == 0, description="the listener has cut the connection")


async def test_an_idle_connection_is_closed_after_keepalive():
    async with serving(limits=QUICK_IDLE) as listener, connected(listener) as client:
        await client.send(post())
        assert (await client.answer())[0] == 200
        assert await client.rest() == b""


async def test_no_deadline_cuts_an_application_that_has_the_whole_request(wait_until):
    app = App()
    async with serving(app) as listener, connected(listener) as client:
        await client.send(post("/wait"))
        await wait_until(lambda: app.seen, description="the request is under way")
        later(listener, 10_000)
        app.gate.set()
        assert (await client.answer())[0] == 200


# --- opening and closing ----------------------------------------------------------------------------------------------


async def test_an_address_in_use_is_one_clear_line():
    async with serving() as listener:
        second = Listener(App(), name="public", host="127.0.0.1", port=listener.port)
        with pytest.raises(OSError) as raised:
            await second.open()
        expected = f"listener public: cannot listen on 127.0.0.1:{listener.port}: the address is in use"
        assert str(raised.value) == expected


async def test_a_certificate_that_cannot_be_read_is_one_clear_line(tmp_path):
    listener = Listener(
        App(), name="public", host="127.0.0.1", port=0, tls=(str(tmp_path / "no"), str(tmp_path / "no"))
    )
    with pytest.raises(OSError, match="cannot use certificate"):
        await listener.open()


async def test_close_lets_requests_under_way_end_and_closes_idle_connections(wait_until):
    app = App()
    async with serving(app) as listener, connected(listener) as busy, connected(listener) as idle:
        await busy.send(post("/wait"))
        await wait_until(lambda: app.seen, description="the request is under way")
        closing = asyncio.create_task(listener.close(600))
        assert await idle.rest() == b""
        app.gate.set()
        status, headers, _ = await busy.answer()
        assert (status, headers["connection"]) == (200, "close")
        await closing
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", listener.port)
        await listener.close()


@pytest.mark.parametrize(
    "start",
    [
        b"POST /x HTTP/1.1\r\nHo",
        b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
        b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        post("/x", b"whole") + b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
    ],
    ids=["head", "body", "chunked body", "the second one's body"],
)
async def test_close_waits_for_no_request_that_is_not_whole(start, wait_until):
    """Nothing of it was accepted, and its sender is told so; its deadlines (5 and 10 s here) do not hold up the end."""
    app = App()
    async with serving(app) as listener, connected(listener) as slow, connected(listener) as busy:
        await busy.send(post("/wait", b"kept"))
        await wait_until(lambda: app.seen, description="a whole request is under way")
        await slow.send(start)
        if start.startswith(post("/x", b"whole")):
            assert (await slow.answer())[2] == b"whole"
        await wait_until(lambda: begun(listener) == 2, description="the other one has begun")
        closing = asyncio.create_task(listener.close(600))
        async with asyncio.timeout(60):
            refused(await slow.answer(), 503)
            assert await slow.rest() == b""
        assert not closing.done(), "who has sent a whole request gets the answer"
        app.gate.set()
        assert (await busy.answer())[2] == b"kept"
        async with asyncio.timeout(60):
            await closing
        assert [body for _, body in app.seen if body != b"whole"] == [b"kept"]


def begun(listener):
    """How many connections have sent something that is not answered yet."""
    return sum(connection._phase != http_protocol.IDLE for connection in listener._hub.connections)


async def test_close_cuts_what_is_left_at_its_deadline_without_an_answer(wait_until):
    app = App()
    async with serving(app) as listener, connected(listener) as client:
        await client.send(post("/wait"))
        await wait_until(lambda: app.seen, description="the request is under way")
        await listener.close(0.05)
        assert await client.rest() == b""
        assert app.cancelled == 1


async def test_a_client_that_leaves_does_not_stop_its_request(wait_until):
    app = App()
    async with serving(app) as listener:
        async with connected(listener) as client:
            await client.send(post("/wait"))
            await wait_until(lambda: app.seen, description="the request is under way")
        app.gate.set()
        await wait_until(lambda: listener.connections == 0, description="the request has ended")
        assert app.cancelled == 0


@pytest.mark.slow
async def test_tls(tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    app = App()
    async with serving(app, tls=(str(cert), str(key))) as listener:
        context = ssl.create_default_context(cafile=str(cert))
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=context)
        client = Client(reader, writer)
        await client.send(post())
        assert (await client.answer())[2] == b"hello"
        assert app.seen[0][0]["scheme"] == "https"
        await client.send(b"BREW / HTTP/1.1\r\n\r\n")
        refused(await client.answer(), 501)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

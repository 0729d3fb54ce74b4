"""Fetching one document: a server of our own behind a certificate of our own, in all its misbehaviour."""

import asyncio
import contextlib
import ssl

import pytest

from bridge.util import https
from bridge.util.https import FetchFailed
from tests.brokers.certificates import make_certificates

BODY = b"-----BEGIN CERTIFICATE-----\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def trusted(files):
    return ssl.create_default_context(cafile=str(files.ca))


@pytest.fixture
def fetch(files, trusted, monkeypatch):
    """Return `fetch(*chunks)`: what is fetched from a server that answers these, and then closes (or, "hangs")."""

    async def run(*chunks, url="https://localhost/a.pem?b=c", timeout_s=30.0, context=trusted, asked=None):
        async def serve(reader, writer):
            head = await reader.readuntil(b"\r\n\r\n")
            if asked is not None:
                asked.append(head)
            with contextlib.suppress(ConnectionError):
                for chunk in chunks:
                    if chunk == "hang":
                        await asyncio.Event().wait()
                    writer.write(chunk)
                    await writer.drain()
            writer.close()

        server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server_context.load_cert_chain(files.broker)
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context)
        port = server.sockets[0].getsockname()[1]

        async def connect(host, context):
            return await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)

        monkeypatch.setattr(https, "connect", connect)
        monkeypatch.setattr(https, "_context", lambda: context)
        try:
            return await https.fetch(url, body_max_bytes=1000, timeout_s=timeout_s)
        finally:
            server.close()
            tasks = [task for task in asyncio.all_tasks() if "serve" in repr(task.get_coro())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return run


async def test_a_document(fetch):
    asked = []

    assert BODY == await fetch(OK, asked=asked)

    assert asked[0].startswith(b"GET /a.pem?b=c HTTP/1.1\r\nHost: localhost\r\n")


@pytest.mark.parametrize(
    "chunks",
    [
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1c\r\n", BODY, b"\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\n\r\n", BODY],
        [OK[:30], OK[30:40], OK[40:]],
        [OK, b"more than was said"],
    ],
)
async def test_however_it_comes(fetch, chunks):
    assert BODY == await fetch(*chunks)


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ([b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"], "localhost answered 404"),
        (
            [b"HTTP/1.1 302 Found\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n"],
            "localhost answered 302",
        ),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", b"x" * 1001], "the answer is larger than 1000 bytes"),
        ([b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 10_000] * 9], "the answer is larger than 1000 bytes"),
        ([b"HTTP/1.1 200 OK\r\n", *[b"a: " + b"x" * 1000 + b"\r\n"] * 60], "the answer's headers are too large"),
        ([b"SSH-2.0-x\r\n\r\n"], "localhost answered no HTTP"),
        ([b""], "localhost broke its answer off"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"], "localhost broke its answer off"),
    ],
)
async def test_what_is_no_document_is_said_in_one_line(fetch, chunks, text):
    with pytest.raises(FetchFailed) as failure:
        await fetch(*chunks)

    assert text == str(failure.value)


async def test_a_status_is_kept(fetch):
    with pytest.raises(FetchFailed) as failure:
        await fetch(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    assert 403 == failure.value.status


async def test_a_host_that_takes_too_long_is_given_up(fetch):
    with pytest.raises(FetchFailed, match=r"localhost did not answer within 0.2 s"):
        await fetch(OK[:20], "hang", timeout_s=0.2)


async def test_a_certificate_that_nobody_vouches_for_is_not_trusted(fetch):
    with pytest.raises(FetchFailed, match="localhost cannot be reached: .*certificate"):
        await fetch(OK, context=ssl.create_default_context())


async def test_a_certificate_of_another_name_is_not_trusted(fetch):
    with pytest.raises(FetchFailed, match=r"other.example cannot be reached: .*certificate"):
        await fetch(OK, url="https://other.example/")


@pytest.mark.parametrize("url", ["http://localhost/", "https://u@localhost/", "https://localhost:1/", "https:///x"])
async def test_a_url_that_was_not_pinned_is_a_mistake_of_ours(url):
    with pytest.raises(AssertionError):
        await https.fetch(url, body_max_bytes=1, timeout_s=1)

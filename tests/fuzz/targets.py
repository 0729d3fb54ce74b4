"""What is fuzzed: pieces that read what strangers send, each with what must hold whatever comes."""

import datetime as dt
import hashlib
import io
import itertools
import json
import random
import re
import socket
import struct
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.function import FunctionVersion, function_arn
from bridge.events.http import HttpRequest
from bridge.pipeline.filters import PatternInvalid, compile_pattern
from bridge.registry.sigv4 import SignatureRefused, SignedRequest, check_signature
from bridge.registry.zips import ZipRefused, read_zip
from bridge.runtime import frames
from bridge.runtime.loopback_http import NotHttp, Peer
from bridge.runtime.process import READ_BYTES, Worker
from bridge.runtime.results import KILLED
from bridge.sources.push.signatures import make_verifier
from bridge.testing.clock import ManualClock
from tests.unit.pipeline.test_generated import EVENTS, PATTERNS
from tests.unit.sources.push.test_signatures import HEADERS, NOW, OPTIONS, SIGNED


@dataclass(frozen=True)
class Target:
    """One piece of the project that is fuzzed."""

    run: Callable[[bytes], object]
    """Takes any bytes; whatever it raises is a finding."""
    guided_by: tuple[str, ...]
    """Modules whose branches guide the search: bytes that reach new ones are kept and varied."""
    seeds: Callable[[], Iterator[bytes]] = lambda: iter(())
    """What to begin with."""


# --- packages ---------------------------------------------------------------------------------------------------------

UNZIPPED_MAX = 1 << 20


def read_package(data: bytes) -> None:
    """Nothing leads outside, nothing is twice, no more than the limit; and it is what `zipfile` reads."""
    found: dict[str, bytearray] = {}
    try:
        for piece in read_zip(io.BytesIO(data), limit_bytes=UNZIPPED_MAX):
            assert piece.is_first == (piece.name not in found), piece.name
            found.setdefault(piece.name, bytearray()).extend(piece.data)
    except ZipRefused as refused:
        assert str(refused)
        return
    assert sum(map(len, found.values())) <= UNZIPPED_MAX
    for name in found:
        parts = name.split("/")
        assert all(parts), name
        assert not {".", ".."} & set(parts), name
        assert not re.search(r"[\x00-\x1f\x7f\\]", name), name
        assert not any(other.startswith(f"{name}/") for other in found), name
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert found == {entry.filename: archive.read(entry) for entry in archive.infolist() if not entry.is_dir()}


def packages() -> Iterator[bytes]:
    """Yield zips of every form that is read, and of some that are not."""
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", method) as archive:
            archive.writestr("app.py", "def handler(event, context):\n    return event\n")
            archive.mkdir("lib")
            archive.writestr("lib/empty", "")
            link = zipfile.ZipInfo("lib/bin/run")
            link.external_attr = 0o755 << 16
            archive.writestr(link, b"#!/bin/sh\n" * 40)
            archive.comment = b"a comment"
        yield target.getvalue()
        yield b"#!/bin/sh\n" + target.getvalue()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive, archive.open("\u00e4.py", "w", force_zip64=True) as file:
        file.write(b"x" * 100)
    yield target.getvalue()


# --- event filters ----------------------------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
_TEXTS = PATTERNS.map(json.dumps) | _JSON.map(json.dumps) | st.text(max_size=80)


@given(_TEXTS, st.lists(EVENTS | _JSON, min_size=1, max_size=3))
def filter_events(text: str, events: list[Any]) -> None:
    """A pattern is refused in a line, or it answers: generated code as the interpreter, the explanation as both."""
    try:
        pattern = compile_pattern(text)
    except PatternInvalid as refused:
        assert str(refused)
        return
    for event in events:
        answer = pattern.matches(event)
        assert answer == pattern.interpret(event)
        assert answer == pattern.explain(event).matched


# --- frames of workers ------------------------------------------------------------------------------------------------


class _Deaf(Worker):
    """A worker without a process, log and socket: only its frames are read."""

    __slots__ = ()

    def drain_log(self) -> None:
        """There is none."""

    def _end_init_log(self, init_ms: float) -> None:
        """There is none."""


class _Notes:
    """What a worker tells its pool, written down."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        def note(worker: Worker, *what: Any) -> None:
            if name == "worker_failed_init":
                worker.failure = KILLED  # as the pool has it
            self.told.append((name, *(getattr(each, "sequence", each) for each in what)))

        return note


JOBS = 4
_VERSION = FunctionVersion(name="f", arn=function_arn("f"), code="", revision="", handler="")


def _told(stream: bytes, pieces: Sequence[int]) -> list[tuple[object, ...]]:
    notes = _Notes()
    worker = _Deaf(notes, worker_id=1, fleet=SimpleNamespace(version=_VERSION), stream="s", slot="")  # type: ignore[arg-type]
    worker.jobs = deque(SimpleNamespace(sequence=number) for number in range(1, JOBS + 1))  # type: ignore[misc]
    worker.skipping = 1
    sizes = itertools.cycle(pieces)
    while stream and ("worker_garbled",) not in notes.told:
        piece, stream = stream[: (size := next(sizes))], stream[size:]
        worker.get_buffer(-1)[: len(piece)] = piece
        worker.buffer_updated(len(piece))
    assert len(notes.told) <= JOBS + 4
    return notes.told


def read_frames(data: bytes) -> None:
    """However the bytes of a worker are cut, the pool is told the same: answers in their order, or that it is garbled."""
    if not data:
        return
    whole = _told(data[1:], [READ_BYTES])
    assert whole == _told(data[1:], [1 + data[0] % 40, 1 + data[0] // 40, 21])


def worker_frames() -> Iterator[bytes]:
    """Yield the lives of workers."""

    def frame(kind: int, sequence: int = 0, payload: bytes = b"") -> bytes:
        return frames.RESULT.pack(frames.RESULT_REST + len(payload), kind, sequence, 1.5, 1024) + payload

    ready = frame(frames.READY)
    yield b"\x00" + ready + frame(frames.OK, 1, b"{}") + frame(frames.ERROR, 2, b'{"errorType":"E"}')
    yield b"\x33" + ready + frame(frames.SKIPPED) + frame(frames.OK, 1, b"x" * 300) + frame(frames.LEAVING)
    yield b"\xff" + frame(frames.INIT_ERROR, 0, b'{"errorType":"Runtime.ImportModuleError"}')
    yield b"\x05" + ready + frame(frames.OK, 3) + ready
    yield b"\x05" + struct.pack("=I", 2**31) + ready


# --- the Runtime API --------------------------------------------------------------------------------------------------

BODY_MAX = 4096


def _requests(stream: bytes, pieces: Sequence[int]) -> list[tuple[object, ...]]:
    ours, theirs = socket.socketpair()
    read: list[tuple[object, ...]] = []
    sizes = itertools.cycle(pieces)
    with ours, theirs:
        peer = Peer.__new__(Peer)
        # A pair of Unix sockets knows no TCP_NODELAY, which the constructor sets.
        Peer.__init__(peer, SimpleNamespace(setsockopt=lambda *_: None), body_max=BODY_MAX)  # type: ignore[arg-type]
        peer._socket = ours  # noqa: SLF001
        try:
            while stream:
                piece, stream = stream[: (size := next(sizes))], stream[size:]
                theirs.sendall(piece)
                assert peer.receive()
                for request in peer.requests():
                    assert len(request.body) <= BODY_MAX
                    request.header(b"lambda-runtime-function-error-type")
                    read.append((request.method, request.path, request.body, request.trailers, request.is_too_large))
        except NotHttp:
            read.append(("not http",))
    return read


def read_runtime_requests(data: bytes) -> None:
    """However the bytes of a runtime client are cut, the same requests are read, none with more than the limit."""
    if not data:
        return
    whole = _requests(data[1:], [32 * 1024])
    assert whole == _requests(data[1:], [1 + data[0] % 16, 1 + data[0] // 16])


def runtime_requests() -> Iterator[bytes]:
    """Yield what clients of the Runtime API send."""
    path = b"/2018-06-01/runtime/invocation/"
    yield b"\x00GET " + path + b"next HTTP/1.1\r\nHost: 127.0.0.1:9001\r\n\r\n"
    answer = b"POST " + path + b"00000000-0000-0000-0000-000000000000/response HTTP/1.1\r\n"
    yield (
        b"\x12" + answer + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n{}" + answer + b"content-length:0\r\n\r\n"
    )
    yield (
        b"\x43"
        + answer
        + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\n12345\r\na;x=1\r\n0123456789\r\n"
        b"0\r\nLambda-Runtime-Function-Error-Type: E\r\n\r\n"
    )
    yield b"\x43" + answer + b"Content-Length: 5000\r\n\r\n" + bytes(5000) + answer + b"\r\n"


# --- signatures -------------------------------------------------------------------------------------------------------

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
_PATHS = st.text(st.characters(codec="utf-8"), max_size=12).map(lambda text: "/" + quote(text, safe="/-_.~"))
_QUERIES = st.lists(
    st.tuples(*2 * (st.text(max_size=5).map(lambda text: quote(text, safe="-_.~")),)).map("=".join), max_size=3
).map("&".join)
_VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
_ODD = st.text(max_size=60) | st.from_regex(r"AWS4-HMAC-SHA256 Credential=[^ ]*, ?SignedHeaders=[^ ]*, ?Signature=.*")


@given(_PATHS, _QUERIES, _VALUES, st.binary(max_size=16), st.data())
def check_sigv4(path: str, query: str, value: str, body: bytes, data: st.DataObject) -> None:
    """What botocore signs is taken; changed in any part, or made up, it is refused in AWS's words."""
    url = f"http://127.0.0.1{path}" + (f"?{query}" if query else "")
    made = AWSRequest("POST", url, data=body, headers={"host": "127.0.0.1", "x-amz-meta": value})
    SigV4Auth(Credentials(KEY, SECRET), "lambda", "eu-central-1").add_auth(made)
    parts = urlsplit(url)
    headers = {name.lower(): [str(text)] for name, text in made.headers.items()}
    request = SignedRequest("POST", parts.path, parts.query, headers, hashlib.sha256(body).hexdigest())
    stamp = headers["x-amz-date"][0]
    now = dt.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC).timestamp()
    assert check_signature(request, secret_of={KEY: SECRET}.get, now=now).key_id == KEY
    name = data.draw(st.sampled_from(["authorization", "x-amz-date", "host", "x-amz-meta"]))
    changed = (
        request._replace(body_hash=hashlib.sha256(body + b"!").hexdigest()),
        request._replace(method="GET"),
        request._replace(path=f"{parts.path}x"),
        request._replace(query=f"{parts.query}&z=1"),
        request._replace(headers=headers | {name: [data.draw(_ODD)]}),
        request._replace(headers=headers | {name: []}),
    )
    for each in changed:
        if _same_value(each.headers[name], headers[name]) and each[:3] + each[4:] == request[:3] + request[4:]:
            continue
        try:
            check_signature(each, secret_of={KEY: SECRET}.get, now=now)
        except SignatureRefused as refused:
            assert refused.code  # noqa: PT017
            continue
        raise AssertionError(f"taken: {each}")


def _same_value(one: Sequence[str], other: Sequence[str]) -> bool:
    """Values that differ in the number of their blanks alone are one to SigV4."""
    return [" ".join(text.split()) for text in one or [""]] == [" ".join(text.split()) for text in other]


_HEADER_VALUES = st.binary(max_size=40) | st.from_regex(rb"(t=[0-9]{0,12},?|v1a?[,=][0-9a-zA-Z+/=]{0,90},? ?){0,4}")


@given(st.sampled_from(sorted(SIGNED)), st.binary(max_size=24), st.data())
def check_webhook_signature(scheme: str, tail: bytes, data: st.DataObject) -> None:
    """What the vendor signs is taken; another body never is, nor a signature that nobody made."""
    sign, secret = SIGNED[scheme]
    sent: HttpRequest = sign()
    verifier = make_verifier(scheme, secrets=[secret], clock=ManualClock(time=NOW), **OPTIONS.get(scheme, {}))
    assert verifier.verify(sent).ok
    body = data.draw(st.sampled_from([sent.body + tail, tail, tail + sent.body]))
    if body != sent.body:
        assert not verifier.verify(sent._replace(body=body)).ok
    headers = [
        (name, data.draw(_HEADER_VALUES) if name == HEADERS[scheme] or data.draw(st.booleans()) else value)
        for name, value in sent.headers
    ]
    verdict = verifier.verify(sent._replace(headers=headers))
    if dict(headers)[HEADERS[scheme]] != dict(sent.headers)[HEADERS[scheme]]:
        assert not verdict.ok
        assert verdict.reason.isprintable()


def choices() -> Iterator[bytes]:
    """Yield what hypothesis reads as choices: of nothing else can a value of some size be made."""
    chance = random.Random(0)
    for size in (16, 64, 256, 1024, 4096):
        for _ in range(12):
            yield chance.randbytes(size)
        yield bytes(size)


TARGETS = {
    "package": Target(read_package, ("bridge.registry.zips", "zipfile"), packages),
    "filter": Target(
        filter_events.hypothesis.fuzz_one_input,  # type: ignore[attr-defined]
        ("bridge.pipeline.filters", "bridge.pipeline.patterns", "bridge.pipeline.generated", "bridge.pipeline.ranges"),
        choices,
    ),
    "frames": Target(read_frames, ("bridge.runtime.process",), worker_frames),
    "runtime-api": Target(read_runtime_requests, ("bridge.runtime.loopback_http",), runtime_requests),
    "sigv4": Target(
        check_sigv4.hypothesis.fuzz_one_input,  # type: ignore[attr-defined]
        ("bridge.registry.sigv4",),
        choices,
    ),
    "webhook": Target(
        check_webhook_signature.hypothesis.fuzz_one_input,  # type: ignore[attr-defined]
        ("bridge.sources.push.signatures",),
        choices,
    ),
}

"""The server of the Runtime API by itself: a daemon and a client of the test's own, on a clock that it sets."""

import os
import socket
from types import SimpleNamespace

import pytest

from bridge.runtime import frames, runtime_api
from bridge.runtime.bootstrap import INVOKE_HEAD, RESPONSE_MAX_BYTES, Connection
from bridge.runtime.extensions import Extensions
from bridge.runtime.loopback_http import Peer
from bridge.runtime.runtime_api import RuntimeApi

NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n"
ANSWER = b"POST /2018-06-01/runtime/invocation/one/response HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1"
TIMEOUT_MS = 1000


class Served:
    """A server that has begun an invocation of one second for its one client."""

    def __init__(self, clock):
        self.clock = clock
        self.daemon, ours = socket.socketpair()
        tokens = os.eventfd(0, os.EFD_NONBLOCK)
        self.api = RuntimeApi(Connection(ours.detach()), tokens)
        self.api._has_external = False
        self.api._extensions = Extensions(environment={}, spawn=lambda *_: -1, opt="/nowhere")
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.client = socket.create_connection(server.getsockname())
            accepted, _ = server.accept()
        self.peer = Peer(accepted, body_max=RESPONSE_MAX_BYTES)
        self.api._peers[self.peer.fileno()] = self.peer
        self.api._poller.register(self.peer)
        self.closing = [self.daemon, self.client, self.peer, self.api._daemon._socket]
        self.tokens = tokens

        self.ask(NEXT)
        head = INVOKE_HEAD.pack(frames.INVOKE, 0, 1, TIMEOUT_MS, 3, 0, 0, 0) + b"one{}"
        self.daemon.sendall(len(head).to_bytes(4, "little") + head)
        self.api._take_frame()

    def ask(self, request):
        """Have the client send a request and the server attend to it."""
        self.client.sendall(request)
        self.api._attend(self.peer.fileno())
        self.api._advance()

    def kinds(self):
        """Return the kinds of the frames that the daemon has got."""
        data, kinds = self.daemon.recv(65536), []
        while data:
            length, kind, *_ = frames.RESULT.unpack_from(data)
            kinds.append(kind)
            data = data[4 + length :]
        return kinds

    def close(self):
        for each in self.closing:
            each.close()
        os.close(self.tokens)


@pytest.fixture
def served(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    ours = SimpleNamespace(monotonic=lambda: clock.now, perf_counter=lambda: clock.now, time=lambda: clock.now)
    monkeypatch.setattr(runtime_api, "time", ours)
    served = Served(clock)
    yield served
    served.close()


@pytest.mark.parametrize(
    ("after_s", "patience_ms"),
    [
        (0.0, 800),  # until 0.2 s before the timeout
        (0.7, 100),
        (0.9, 50),
        (0.95, 30),  # until 0.02 s before the timeout
        (0.99, 0),
    ],
)
def test_how_long_an_answer_waits_for_its_client_to_ask_for_the_next(served, after_s, patience_ms):
    served.clock.now += after_s
    served.ask(ANSWER)

    assert served.api._patience_ms() == pytest.approx(patience_ms)
    served.clock.now += patience_ms / 2000
    assert served.api._patience_ms() == pytest.approx(patience_ms / 2)  # which other requests do not prolong
    assert served.kinds() == [frames.READY]
    served.ask(NEXT)
    assert served.api._patience_ms() is None
    assert served.kinds() == [frames.OK]

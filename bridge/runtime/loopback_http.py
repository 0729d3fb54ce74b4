"""The little of HTTP/1.1 that clients of the Runtime API speak: requests off a socket, whole answers; child side.

Standard library only. A body above its limit is read to its end and dropped: a client that is still sending hears no
answer. Whose connection it is, is asked of the kernel: other functions' workers reach the same loopback interface.
"""

import os
import re
import socket
import struct
from collections.abc import Iterator
from typing import Final

HEAD_MAX_BYTES: Final = 1024 * 1024 + 64 * 1024
RECEIVE_BYTES: Final = 64 * 1024
APART_MIN_BYTES: Final = 16 * 1024
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*\r\n")
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n")
_CONTINUE: Final = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*\r\n")
_LAST: Final = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,12})[ \t]*(?:;.*)?")
_REASONS: Final = {
    200: b"OK", 202: b"Accepted", 400: b"Bad Request", 403: b"Forbidden", 404: b"Not Found",
    413: b"Request Entity Too Large",
}  # fmt: skip
_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST: Final = 1
_LISTENS: Final = 10
_NO_COOKIE: Final = b"\xff" * 8
_DIAGNOSE: Final = struct.Struct("=IHHII BBHI 2s2s4s12x4s12x I8s")
"""struct nlmsghdr, struct inet_diag_req_v2."""
_FOUND: Final = struct.Struct("=4xH11x B 62x II")
"""Of struct nlmsghdr and struct inet_diag_msg: kind, state, user id, inode."""
_EVERY_PROCESS: Final = re.compile(r"[0-9]+")

# One for all connections: memory that is asked for at each receive is mapped and unmapped each time.
_received = bytearray(RECEIVE_BYTES)
_received_view = memoryview(_received)


class NotHttp(Exception):
    """What came is no request; the connection is closed."""


class Request:
    """One request, read whole."""

    __slots__ = ("body", "head", "is_too_large", "method", "path", "trailers")

    def __init__(self, head: bytes) -> None:
        try:
            self.method, path, protocol = head[: head.index(b"\r\n")].split(b" ")
        except ValueError:
            raise NotHttp from None
        if not protocol.startswith(b"HTTP/1."):
            raise NotHttp
        self.path = path
        self.head = head
        """From the request line to the end of the last header's line."""
        self.body = b""
        self.trailers = b""
        """Header lines after a chunked body, as in `head`; empty: none."""
        self.is_too_large = False
        """The body was dropped."""

    def header(self, name: bytes) -> bytes:
        """Return a header's value; empty when it is not there."""
        return find_header(self.head, name)


def find_header(lines: bytes, name: bytes) -> bytes:
    """Return the value of a header among lines that each begin after a line end; empty: none."""
    found = re.search(rb"\r\n" + re.escape(name) + rb":[ \t]*([^\r\n]*?)[ \t]*\r\n", lines, re.IGNORECASE)
    return found[1] if found else b""


class Peer:
    """One connection of a client; readable when `receive` is called."""

    def __init__(self, connection: socket.socket, *, body_max: int) -> None:
        self._socket = connection
        self._body_max = body_max
        self._buffer = bytearray()
        self._request: Request | None = None
        self._body = bytearray()
        self._left = 0
        """Bytes that the body, or its chunk, still lacks."""
        self._chunked = False
        self._in_chunk = False
        self._closes = False
        self.is_last = False
        """The client will close after the answer to what it has asked."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        """Return the descriptor, for a poll."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def receive(self) -> bool:
        """Take in what has come; False: the client has closed its side."""
        try:
            count = self._socket.recv_into(_received)
        except OSError:
            return False
        self._buffer += _received_view[:count]
        return count > 0

    def requests(self) -> Iterator[Request]:
        """Yield the requests that are there whole. Raises NotHttp."""
        while True:
            if self._request is None and not self._begin():
                return
            request = self._request
            assert request is not None
            if not (self._read_chunks(request) if self._chunked else self._read_body(request)):
                return
            self._request = None
            self.is_last = self._closes
            yield request

    def _begin(self) -> bool:
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            if len(self._buffer) > HEAD_MAX_BYTES:
                raise NotHttp
            return False
        head = bytes(self._buffer[: end + 2])
        del self._buffer[: end + 4]
        self._request = Request(head)
        lowered = head.lower()  # a search that minds no case takes ten times as long
        self._closes = _LAST.search(lowered) is not None or b" http/1.0\r\n" in lowered
        self._body.clear()
        self._chunked = self._in_chunk = False
        length = _LENGTH.search(lowered)
        self._left = int(length[1]) if length else 0
        if length is None and _CHUNKED.search(lowered):
            self._chunked = True
        if (self._left or self._chunked) and _CONTINUE.search(lowered):
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _read_body(self, request: Request) -> bool:
        self._keep(request)
        if self._left:
            return False
        request.body = bytes(self._body)
        return True

    def _keep(self, request: Request) -> None:
        """Move what the buffer has of the body, or its chunk, out of it."""
        if not self._left or not self._buffer:
            return
        piece = self._buffer[: self._left]
        del self._buffer[: len(piece)]
        self._left -= len(piece)
        if len(self._body) + len(piece) > self._body_max:
            request.is_too_large = True
            self._body.clear()
        if not request.is_too_large:
            self._body += piece

    def _read_chunks(self, request: Request) -> bool:
        while True:
            if self._left:
                self._keep(request)
                if self._left:
                    return False
            if self._in_chunk:
                if len(self._buffer) < 2:
                    return False
                if self._buffer[:2] != b"\r\n":
                    raise NotHttp
                del self._buffer[:2]
                self._in_chunk = False
            end = self._buffer.find(b"\r\n")
            size = _CHUNK_SIZE.fullmatch(self._buffer[:end]) if end >= 0 else None
            if size is None:
                if end >= 0 or len(self._buffer) > HEAD_MAX_BYTES:
                    raise NotHttp
                return False
            if int(size[1], 16) == 0:
                return self._end_chunks(request, end)
            del self._buffer[: end + 2]
            self._left, self._in_chunk = int(size[1], 16), True

    def _end_chunks(self, request: Request, size_end: int) -> bool:
        end = self._buffer.find(_HEAD_END, size_end)
        if end < 0:
            if len(self._buffer) > HEAD_MAX_BYTES:
                raise NotHttp
            return False
        request.trailers = bytes(self._buffer[size_end : end + 2])
        del self._buffer[: end + 4]
        request.body = bytes(self._body)
        return True

    def answer(self, status: int, body: bytes | memoryview, headers: bytes = b"") -> bool:
        """Send an answer whose `headers` are whole lines; False: the client has gone."""
        reason = _REASONS[status]
        head = b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n" % (
            status, reason, len(body), headers,
        )  # fmt: skip
        try:
            if len(body) < APART_MIN_BYTES:
                self._socket.sendall(head + body)
            else:
                self._socket.sendall(head)
                self._socket.sendall(body)
        except OSError:
            return False
        return True


def listen() -> socket.socket:
    """Return a listener on a free port of the loopback interface. Raises OSError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    return listener


def is_from_here(connection: socket.socket, *, only_these_processes: bool) -> bool:
    """Tell whether a loopback connection was made by a process of this user, and of this process-id namespace.

    Args:
        connection: as accepted.
        only_these_processes: /proc shows a worker's processes alone, so that one of them must hold the other end.
    """
    try:
        theirs, ours = connection.getpeername(), connection.getsockname()
        owner = _diagnosed(theirs, ours) or _listed(theirs, ours)
    except OSError:
        return False
    if owner is None or owner[0] != os.getuid():
        return False
    return not only_these_processes or _is_held(f"socket:[{owner[1]}]")


def _diagnosed(theirs: tuple[str, int], ours: tuple[str, int]) -> tuple[int, int] | None:
    """Return user id and inode of the other end's socket (sock_diag(7)); None: the kernel does not tell."""
    query = _DIAGNOSE.pack(
        _DIAGNOSE.size, _SOCK_DIAG_BY_FAMILY, _REQUEST, 0, 0,
        socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF,
        theirs[1].to_bytes(2, "big"), ours[1].to_bytes(2, "big"),
        socket.inet_aton(theirs[0]), socket.inet_aton(ours[0]), 0, _NO_COOKIE,
    )  # fmt: skip
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
            kernel.send(query)
            answer = kernel.recv(4096)
    except OSError:
        return None
    if len(answer) < _FOUND.size:
        return None
    kind, state, user, inode = _FOUND.unpack_from(answer)
    if kind != _SOCK_DIAG_BY_FAMILY or state == _LISTENS:
        return None
    return user, inode


def _listed(theirs: tuple[str, int], ours: tuple[str, int]) -> tuple[int, int] | None:
    """Return the same from the list of all connections, which takes the kernel milliseconds. Raises OSError."""
    with open("/proc/net/tcp", "rb") as file:
        table = file.read()
    start = table.find(b": " + _in_hex(theirs) + b" " + _in_hex(ours) + b" ")
    if start < 0:
        return None
    # local remote state queues timer retransmits USER timeout INODE
    fields = table[start + 2 : start + 256].split(b"\n")[0].split()
    return int(fields[6]), int(fields[8])


def _in_hex(address: tuple[str, int]) -> bytes:
    host, port = address
    return b"%08X:%04X" % (struct.unpack("=I", socket.inet_aton(host))[0], port)


def _is_held(name: str) -> bool:
    for process in filter(_EVERY_PROCESS.fullmatch, os.listdir("/proc")):
        folder = f"/proc/{process}/fd"
        try:
            descriptors = os.listdir(folder)
        except OSError:
            continue  # it has ended, or is the keeper
        for descriptor in descriptors:
            try:
                if os.readlink(f"{folder}/{descriptor}") == name:
                    return True
            except OSError:
                continue
    return False

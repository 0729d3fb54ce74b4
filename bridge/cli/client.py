"""The api's client for the command line: standard library only, NDJSON streams, errors of one line."""

import http.client
import json
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from bridge.cli.failures import Failed, Misused, NoDaemon

TIMEOUT_S: Final = 30.0
"""For connecting and between two pieces of an answer: an idle stream sends an empty line every 10 s."""
INVOKE_TIMEOUT_S: Final = 960.0
"""A function may run 900 s; its start and the wait for a slot come on top."""
_LINE_MAX_BYTES: Final = 64 * 1024 * 1024
_ANSWER_MAX_BYTES: Final = 256 * 1024 * 1024
_PREFIX: Final = "/admin/v1"

Query = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes


class Client:
    """Talks to one daemon.

    Every method raises `NoDaemon` when nobody answers, `Misused` when the daemon refuses the token or the
    arguments, and `Failed` for every other refusal.

    Args:
        url: `http://host:port` or `https://…`.
        token: the admin token.
        certificate: path of the daemon's own certificate, the only one trusted then; else the system's trust.
        timeout_s: see `TIMEOUT_S`.
    """

    def __init__(self, url: str, token: str, *, certificate: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise Misused(f"--url {url}: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise Misused(f"--url {url}: must look like http://127.0.0.1:8581")
        if any(char.isspace() or not char.isprintable() for char in token) or not token.isascii():
            raise Misused("the token holds characters that no token has")
        self.url = url.rstrip("/")
        self._host, self._port, self._is_tls = parts.hostname, port, parts.scheme == "https"
        self._path = parts.path.rstrip("/")
        self._token = token
        self._certificate = certificate
        self._timeout_s = timeout_s

    # --- whole answers --------------------------------------------------------------------------------------------
    def get(self, path: str, query: Query | None = None, *, see: str = "") -> Any:
        """GET a JSON document; `see` is the command that lists what there is, told where there is none of that name."""
        return _document(self.raw("GET", path, query=query, see=see))

    def post(self, path: str, body: Mapping[str, object] | None = None, *, see: str = "") -> Any:
        """POST a JSON object, get a JSON document; `see` as for `get`."""
        return _document(self.raw("POST", path, body=json.dumps(body or {}).encode(), see=see))

    def raw(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        refuse: bool = True,
        see: str = "",
    ) -> Reply:
        """Send one request; with `refuse` an error status raises, without it is returned.

        A body in pieces needs the header `content-length`. `see` as for `get`.
        """
        with self._open(method, path, query, body, headers, timeout_s) as response, self._reported():
            content = response.read(_ANSWER_MAX_BYTES + 1)
            if len(content) > _ANSWER_MAX_BYTES:
                raise Failed("the answer is larger than 256 MiB; ask for less with --limit")
            reply = Reply(
                status=response.status,
                headers={name.lower(): value for name, value in response.getheaders()},
                body=content,
            )
        if refuse and reply.status >= 400:
            raise refusal(reply, see=see)
        return reply

    # --- streams --------------------------------------------------------------------------------------------------
    def lines(self, path: str, query: Query | None = None, *, see: str = "") -> Iterator[bytes]:
        """Yield the raw lines of an NDJSON stream, without their ends, until the daemon ends it; `see` as for `get`."""
        with self._open("GET", path, query, None, None, None) as response:
            if response.status >= 400:
                with self._reported():
                    reply = Reply(status=response.status, headers={}, body=response.read(1 << 20))
                raise refusal(reply, see=see)
            yield from self._split(response)

    def stream(self, path: str, query: Query | None = None, *, see: str = "") -> Iterator[dict[str, Any]]:
        """Yield the objects of an NDJSON stream; `see` as for `get`."""
        for line in self.lines(path, query, see=see):
            yield json.loads(line)

    def _split(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        pending = bytearray()
        while True:
            with self._reported():
                piece = response.read1(1 << 16)
            if not piece:
                break
            start = len(pending)
            pending += piece
            if pending.find(b"\n", start) < 0:
                if len(pending) > _LINE_MAX_BYTES:
                    raise Failed("the daemon sent a line of more than 64 MiB")
                continue
            *whole, rest = bytes(pending).split(b"\n")
            pending = bytearray(rest)
            for line in whole:
                if line:
                    yield _checked(line)
        if pending:
            raise Failed("the daemon ended the stream in the middle of a line")

    # --- connection -----------------------------------------------------------------------------------------------
    @contextmanager
    def _open(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: bytes | Iterable[bytes] | None,
        headers: Mapping[str, str] | None,
        timeout_s: float | None,
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._connection(timeout_s or self._timeout_s)
        target = f"{self._path}{_PREFIX}{path}"
        if query:
            target += "?" + urlencode(_pairs(query))
        own = {"authorization": f"Bearer {self._token}", "accept": "application/json"}
        try:
            with self._reported():
                connection.request(method, target, body=body, headers=own | dict(headers or {}))
                response = connection.getresponse()
            yield response
        finally:
            connection.close()

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        if not self._is_tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        context = ssl.create_default_context(cafile=self._certificate)
        context.check_hostname = self._certificate is None  # a pinned certificate is enough: it names the public host
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=context)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Turn what the network does into one line."""
        try:
            yield
        except ConnectionRefusedError as error:
            raise NoDaemon(f"no daemon answers at {self.url}") from error
        except (socket.gaierror, ssl.SSLError) as error:
            raise NoDaemon(f"cannot reach {self.url}: {error}") from error
        except TimeoutError as error:
            raise Failed(f"the daemon at {self.url} does not answer") from error
        except http.client.IncompleteRead as error:
            raise Failed("the daemon ended the connection in the middle of its answer") from error
        except (http.client.HTTPException, OSError) as error:
            what = str(error) or type(error).__name__
            raise Failed(f"the daemon at {self.url} ended the connection: {what}") from error


def segment(text: str) -> str:
    """Return `text` as one segment of a path."""
    return quote(text, safe=":$")


def _pairs(query: Query) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in query.items():
        if value is None or value is False:
            continue
        values: Sequence[object] = value if isinstance(value, list | tuple) else [value]
        pairs += [(name, "true" if item is True else str(item)) for item in values]
    return pairs


def _document(reply: Reply) -> Any:
    try:
        return json.loads(reply.body)
    except ValueError as error:
        raise Failed("the answer is not JSON; is this bridge's api?") from error


def _checked(line: bytes) -> bytes:
    """Raise what the daemon says went wrong within a stream: a line that holds an error and nothing else."""
    if line.startswith(b'{"error":'):
        value = json.loads(line)
        if set(value) == {"error"}:
            raise Failed(str(value["error"]))
    return line


def refusal(reply: Reply, *, see: str = "") -> Failed:
    """Return the error that an answer stands for; of a 404 with `see`, the command that lists what there is."""
    text, more = f"the daemon answers {reply.status}", []
    try:
        value = json.loads(reply.body)
    except ValueError:
        value = None
    if isinstance(value, dict):
        text = str(value.get("error") or value.get("message") or value.get("Message") or text)
        more = [str(line) for line in value.get("mistakes", [])]
    if see and reply.status == 404:
        more.append(f"what there is: {see}")
    if reply.status == 401:
        return Misused(
            "the daemon refuses the token; see --token, BRIDGE_TOKEN and the file `token` of its state folder"
        )
    return (Misused if reply.status in (400, 403, 422) else Failed)(text, more=more)

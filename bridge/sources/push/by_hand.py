"""Requests to a webhook route that nobody sent: made of what was given by hand, and their answers caught."""

from collections.abc import Sequence

import orjson

from bridge.core.push import Accepted, Given, NotAccepted
from bridge.events.http import HttpRequest
from bridge.util.asgi import Message

_ANY = "*"
_SOURCE_IP = "127.0.0.1"
_REQUEST_ID = b"x-amzn-requestid"


def hand_request(given: Given, *, path: bytes, methods: Sequence[str]) -> HttpRequest:
    """Return the request.

    Args:
        given: the body and the rest; without a content type it is JSON where it reads as such, else text or bytes.
        path: the route's, percent-encoded.
        methods: what the route takes; `*`: any.

    Raises:
        NotAccepted: a method that the route does not take, or a header or query that no request can have.
    """
    method = given.method.upper() or ("POST" if {"POST", _ANY} & set(methods) else methods[0])
    if method not in methods and _ANY not in methods:
        raise NotAccepted(f"only {', '.join(methods)} here, not {method}", status=405)
    try:
        sent = [(name.encode("ascii"), value.encode("latin-1")) for name, value in given.headers]
        query = given.query.removeprefix("?").encode("ascii")
    except UnicodeEncodeError as error:
        raise NotAccepted(f"a header or the query holds {error.object[error.start : error.end]!r}") from error
    names = {name.lower() for name, _ in sent}
    if b"content-type" not in names and given.data:
        sent.append((b"Content-Type", _content_type(given.data)))
    if b"content-length" not in names:
        sent.append((b"Content-Length", b"%d" % len(given.data)))
    return HttpRequest(
        method=method,
        path=path,
        query=query,
        headers=[(name.lower(), value) for name, value in sent],
        sent_names=[name for name, _ in sent],
        body=given.data,
        source_ip=_SOURCE_IP,
    )


def _content_type(data: bytes) -> bytes:
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            data.decode()
        except UnicodeDecodeError:
            return b"application/octet-stream"
        return b"text/plain; charset=utf-8"
    return b"application/json"


class Answered:
    """Catches an answer that would have gone to a sender (ASGI's `send`)."""

    def __init__(self) -> None:
        self._status = 0
        self._headers: dict[bytes, bytes] = {}
        self._body = b""

    async def send(self, message: Message) -> None:
        """Take a message."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = dict(message["headers"])
        else:
            self._body += message.get("body", b"")

    def accepted(self) -> Accepted:
        """Return what it says."""
        if (request_id := self._headers.get(_REQUEST_ID)) is not None:
            return Accepted(ids=(request_id.decode(),), status=self._status, body=self._body)
        told = orjson.loads(self._body) if self._status == 202 and self._body else {}
        ids = (told["id"],) if "id" in told else tuple(told.get("ids", ()))
        if not ids:
            return Accepted(ids=(), status=self._status, body=self._body)
        return Accepted(ids=ids, duplicates=int(told.get("duplicates", told.get("duplicate", 0))), status=self._status)

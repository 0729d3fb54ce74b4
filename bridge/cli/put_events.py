"""`bridge put` into a push source: the requests that its events go in, and what is shown of their answers."""

import json
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import click

from bridge.cli import output
from bridge.cli.client import Client, refusal, segment
from bridge.cli.failures import Failed, Misused
from bridge.cli.put_records import BATCH_MAX_BYTES, FULL_TRIES_MAX
from bridge.core import limits

_BATCH_EVENTS_MAX: Final = 200
_UNAVAILABLE: Final = 503
_SHOWN_MAX_BYTES: Final = 64 * 1024
"""Of an answer's body, as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What all events of one `bridge put` have in common."""

    method: str = ""
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    topic: str = ""
    at: float | None = None

    def event(self, data: bytes) -> dict[str, Any]:
        """Return one as the api takes it."""
        made: dict[str, Any] = {"data": b64encode(data).decode("ascii")} if data else {}
        for name in ("method", "query", "topic"):
            if value := getattr(self, name):
                made[name] = value
        if self.headers:
            made["headers"] = [list(pair) for pair in self.headers]
        return made if self.at is None else made | {"at": self.at}


class EventSender:
    """Gathers events into requests, at most so many a second, and shows what became of each."""

    def __init__(
        self,
        client: Client,
        source: str,
        request: Request,
        *,
        rate: float | None,
        show: Callable[[int, int], None],
        as_json: bool,
    ) -> None:
        self._client = client
        self._path = f"/sources/{segment(source)}/events"
        self._request = request
        self._rate = rate
        self._batch_max = _BATCH_EVENTS_MAX if rate is None else max(1, min(_BATCH_EVENTS_MAX, int(rate / 10)))
        self._show = show
        self._as_json = as_json
        self._batch: list[dict[str, Any]] = []
        self._size = 0
        self._at = 0
        self._began = time.monotonic()
        self.count = 0
        """Events that were taken."""
        self.has_failed = False
        """Whether a function answered with an error."""

    def add(self, data: bytes, at: int) -> None:
        """Give an event, whose data ends at byte `at` of the input, now or with others that follow."""
        if self._batch and (len(self._batch) >= self._batch_max or self._size + len(data) > BATCH_MAX_BYTES):
            self.flush()
        self._batch.append(self._request.event(data))
        self._size += len(data)
        self._at = at

    def flush(self) -> None:
        """Give what has gathered, in order; what finds no room now is given again every second."""
        tries = 0
        while self._batch:
            if self._rate is not None:
                time.sleep(max(0.0, self._began + self.count / self._rate - time.monotonic()))
            body = json.dumps({"events": self._batch}).encode()
            if len(body) > limits.PUT_MAX_BYTES:
                raise Misused(f"an event of more than {output.size(limits.PUT_MAX_BYTES * 3 / 4)}")
            reply = self._client.raw("POST", self._path, body=body, refuse=False)
            if reply.status >= 400 and reply.status != _UNAVAILABLE:
                raise refusal(reply)
            taken = self._settle(json.loads(reply.body)["results"] if reply.status < 400 else [])
            if not self._batch:
                break
            tries = 0 if taken else tries + 1
            if tries > FULL_TRIES_MAX:
                raise refusal(reply)
            time.sleep(1.0)
        self._batch, self._size = [], 0
        self._show(self.count, self._at)

    def _settle(self, results: list[dict[str, Any]]) -> int:
        """Show what was taken and keep what is to be given again; returns how many were taken. Raises Failed."""
        left: list[dict[str, Any]] = []
        taken = 0
        for event, result in zip(self._batch, results, strict=False):
            if "error" not in result:
                self._tell(result)
                taken += 1
                self.count += 1
            elif result["status"] != _UNAVAILABLE:
                raise Failed(str(result["error"]))
            else:
                left.append(event)
        self._batch = left + self._batch[len(results) :]
        return taken

    def _tell(self, result: dict[str, Any]) -> None:
        body = b64decode(result["body"]) if "body" in result else b""
        self.has_failed = self.has_failed or result["status"] >= 400
        if self._as_json:
            shown = {"body": body.decode("utf-8", "replace")} if body else {}
            output.lines([{name: value for name, value in result.items() if name != "body"} | shown])
            return
        for number, request_id in enumerate(result["ids"]):
            is_duplicate = number < result.get("duplicates", 0) and len(result["ids"]) == 1
            click.echo(request_id + (" (duplicate)" if is_duplicate else ""))
        if result["status"] != 202:
            output.note(f"answered {result['status']}")
            output.block(body[:_SHOWN_MAX_BYTES].decode("utf-8", "replace"), indent="")

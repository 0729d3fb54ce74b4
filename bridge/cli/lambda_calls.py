"""Calls of Lambda's API under the operator's authority: AWS's paths below the admin API, refusals as one line."""

import difflib
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bridge.cli.client import Client, Query, Reply, refusal, segment
from bridge.cli.failures import Failed

FUNCTIONS: Final = "/2015-03-31/functions"
SETTLE_MAX_S: Final = 120.0
"""How long a change may take to be Active or Successful."""
UPLOAD_S: Final = 300.0
"""For each piece of a package, and for the daemon to unzip and sync the whole."""
_POLL_S: Final = 0.05
_PREFIX: Final = "/lambda"


class LambdaRefused(Failed):
    """The daemon refuses a call, by AWS's code."""

    def __init__(self, reply: Reply) -> None:
        told = refusal(reply)
        super().__init__(told.message, more=told.more)
        self.status = reply.status
        self.code = reply.headers.get("x-amzn-errortype", "")


class LambdaMisused(LambdaRefused):
    """…for what it was given: exit code 2."""

    exit_code = 2


def function_path(name: str, rest: str = "", *, version: str = FUNCTIONS) -> str:
    """Return the path of a function, or of what belongs to it."""
    return f"{version}/{segment(name)}{rest}"


def call(
    client: Client, method: str, path: str, *, query: Query | None = None, body: Mapping[str, object] | None = None
) -> Any:
    """Make one call; an answer without a body is None.

    Raises:
        LambdaRefused: whatever the daemon says against it.
    """
    content = None if body is None else json.dumps(body).encode()
    return _answer(client.raw(method, _PREFIX + path, query=query, body=content, refuse=False))


def upload(client: Client, method: str, path: str, *, pieces: Iterable[bytes], size: int) -> Any:
    """Make one call whose body comes in pieces, `size` bytes together; see `call`."""
    headers = {"content-length": str(size), "content-type": "application/json"}
    reply = client.raw(method, _PREFIX + path, body=pieces, headers=headers, timeout_s=UPLOAD_S, refuse=False)
    return _answer(reply)


def pages(client: Client, path: str, member: str, *, query: Query | None = None) -> list[Any]:
    """Return all items of a list that comes in pages."""
    found: list[Any] = []
    marker = None
    while True:
        page = call(client, "GET", path, query={**(query or {}), "Marker": marker, "MaxItems": 1000})
        found += page[member]
        marker = page.get("NextMarker")
        if not marker:
            return found


def _answer(reply: Reply) -> Any:
    if reply.status >= 400:
        raise (LambdaMisused if reply.status in (400, 401, 403, 422) else LambdaRefused)(reply)
    return json.loads(reply.body) if reply.body else None


def find(client: Client, method: str, path: str, *, query: Query | None = None) -> Any:
    """Make one call; what is not there is None."""
    try:
        return call(client, method, path, query=query)
    except LambdaRefused as error:
        if error.status != 404:
            raise
        return None


def unknown_function(client: Client, name: str) -> Failed:
    """Return the error for a function that is not there: the nearest name, and what lists the others."""
    known = [str(each["name"]) for each in client.get("/functions")["functions"]]
    near = difflib.get_close_matches(name.partition(":")[0], known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    more = [f"make it with: bridge functions deploy {name.partition(':')[0]} FOLDER --handler app.handler"]
    return Failed(f"no function {name}{hint}", more=more if not near else ["all there are: bridge functions list"])


def explained(client: Client, name: str, error: LambdaRefused, *more: str) -> Failed:
    """Return a refusal with what to do next where the function is not there, or, `more`, what belongs to it."""
    if error.status != 404:
        return error
    if find(client, "GET", function_path(name, "/configuration")) is None:
        return unknown_function(client, name)
    error.more = more
    return error


def versions_of(name: str) -> str:
    """Return where to look when a version or an alias is not there."""
    return f"versions and aliases that there are: bridge functions show {name}"


def settled(client: Client, name: str) -> dict[str, Any]:
    """Wait until a function is Active and its last change Successful; return its configuration.

    Raises:
        Failed: it is not after two minutes.
    """
    until = time.monotonic() + SETTLE_MAX_S
    while True:
        found: dict[str, Any] = call(client, "GET", function_path(name, "/configuration"))
        if found.get("State") == "Active" and found.get("LastUpdateStatus", "Successful") == "Successful":
            return found
        if time.monotonic() > until:
            raise Failed(f"{name} is still {found.get('State')}; look again with: bridge functions show {name}")
        time.sleep(_POLL_S)

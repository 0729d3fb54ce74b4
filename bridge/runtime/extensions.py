"""Lambda's Extensions API (2020-01-01) for one worker: which extensions there are, what they await, how they end.

Child side, standard library only, part of the Runtime API's server (`runtime_api.py`). External ones are the programs
in `/opt/extensions`; internal ones register from within the runtime. What AWS's pages leave open follows its Runtime
Interface Emulator.
"""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from bridge.runtime.loopback_http import Peer, Request

EXTENSIONS_MAX: Final = 10
"""Of one worker, both kinds; a further one is refused."""
SHUTDOWN_MAX_S: Final = 2.0
"""How long the runtime and the extensions may take to end."""
RUNTIME_SHARE: Final = 0.3
"""Of that time, for the runtime, which is told first."""
PREFIX: Final = b"/2020-01-01/extension/"
EVENTS: Final = ("INVOKE", "SHUTDOWN")
NO_TELEMETRY: Final = {b"/2022-07-01/telemetry": "Telemetry", b"/2020-08-15/logs": "Logs"}
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_IDENTIFIER: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HIDDEN: Final = (
    "AWS_EXECUTION_ENV", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_XRAY_CONTEXT_MISSING",
    "AWS_XRAY_DAEMON_ADDRESS", "LAMBDA_RUNTIME_DIR", "LAMBDA_TASK_ROOT", "_HANDLER", "AWS_LAMBDA_EXEC_WRAPPER",
)  # fmt: skip
"""Variables of the function that its extensions do not have (runtimes-extensions-api.html)."""


class Extension:
    """One of them."""

    __slots__ = ("asking", "due", "end", "error_type", "events", "identifier", "name", "process")

    def __init__(self, name: str) -> None:
        self.name = name
        self.identifier = ""
        """Empty: it has not registered."""
        self.events: tuple[str, ...] = ()
        self.asking: Peer | None = None
        """Waits for the next event."""
        self.due: bytes = b""
        """An event that it gets when it asks."""
        self.process = -1
        """Of an external one that lives."""
        self.end = -1
        """Descriptor that its end makes readable."""
        self.error_type = ""
        """What it has said of itself."""


class Extensions:
    """All of one worker. `spawn` starts a program with its environment and returns the process id; raises OSError."""

    def __init__(
        self, *, environment: Mapping[str, str], spawn: Callable[[list[str], dict[str, str]], int], opt: str
    ) -> None:
        self._environment = environment
        self._spawn = spawn
        self._folder = f"{opt}/extensions"
        self._all: list[Extension] = []
        self._asking: dict[int, Extension] = {}
        self.is_closed = False
        """The runtime is ready: none may register any more."""

    # --- state ------------------------------------------------------------------------------------------------

    @property
    def are_registered(self) -> bool:
        """All external ones have said who they are: the runtime may start."""
        return all(each.identifier for each in self._all)

    @property
    def are_waiting(self) -> bool:
        """Every one of them has asked for the next event."""
        return all(each.asking is not None for each in self._all)

    @property
    def are_any(self) -> bool:
        """There is one, of either kind."""
        return bool(self._all)

    @property
    def are_living(self) -> bool:
        """External ones run."""
        return any(each.end >= 0 for each in self._all)

    def lines(self) -> bytes:
        """Return the platform's lines about them."""
        text = "EXTENSION\tName: {}\tState: Ready\tEvents: [{}]\n"
        return "".join(text.format(each.name, ", ".join(each.events)) for each in self._all).encode()

    def unready(self) -> bytes:
        """Return the lines of an init that failed: what each has come to."""
        text = "EXTENSION\tName: {}\tState: {}\tEvents: [{}]\tError Type: {}\n"
        return "".join(
            text.format(
                each.name, "Registered" if each.identifier else "Started", ", ".join(each.events), each.error_type
            )
            for each in self._all
        ).encode()

    # --- programs ---------------------------------------------------------------------------------------------

    def start(self, names: list[str]) -> list[int]:
        """Start the external ones; return descriptors that their ends make readable.

        Raises:
            OSError: one of them cannot be started, or there are too many.
        """
        if len(names) > EXTENSIONS_MAX:
            raise OSError(0, f"{len(names)} extensions, {EXTENSIONS_MAX} at most")
        environment = {name: value for name, value in self._environment.items() if name not in _HIDDEN}
        for name in names:
            each = Extension(name)
            self._all.append(each)
            each.process = self._spawn([f"{self._folder}/{name}"], environment)
            each.end = os.pidfd_open(each.process)
        return [each.end for each in self._all]

    def ended(self, descriptor: int) -> tuple[Extension, int] | None:
        """Return the one whose end a descriptor tells, and its status; None: it is no descriptor of theirs."""
        each = next((each for each in self._all if each.end == descriptor), None)
        if each is None:
            return None
        _, status = os.waitpid(each.process, 0)
        os.close(each.end)
        each.process = each.end = -1
        return each, status

    # --- their requests ---------------------------------------------------------------------------------------

    def serve(self, peer: Peer, request: Request) -> None:
        """Answer a request of the Extensions API, or keep it until there is an event."""
        what = request.path.removeprefix(PREFIX)
        if request.method == b"POST" and what == b"register":
            self._register(peer, request)
            return
        each = self._known(peer, request)
        if each is None:
            return
        if request.method == b"GET" and what == b"event/next":
            self._next(peer, each)
        elif request.method == b"POST" and what in {b"init/error", b"exit/error"}:
            error_type = request.header(b"Lambda-Extension-Function-Error-Type").decode("utf-8", "replace")
            if not error_type:
                _refuse(peer, 400, "Extension.MissingHeader", "Lambda-Extension-Function-Error-Type not found")
                return
            each.error_type = error_type  # its process ends now
            peer.answer(202, b'{"status":"OK"}\n')
        else:
            _refuse(peer, 404, "NotFound", "404 page not found")

    def _known(self, peer: Peer, request: Request) -> Extension | None:
        identifier = request.header(b"Lambda-Extension-Identifier").decode("ascii", "replace")
        if not identifier:
            _refuse(peer, 403, "Extension.MissingExtensionIdentifier", "Missing Lambda-Extension-Identifier header")
            return None
        each = next((each for each in self._all if each.identifier == identifier), None)
        if each is None:
            kind = "Unknown" if _IDENTIFIER.fullmatch(identifier) else "Invalid"
            _refuse(peer, 403, f"Extension.{kind}ExtensionIdentifier", f"{kind} extension identifier")
        return each

    def _register(self, peer: Peer, request: Request) -> None:
        name = request.header(b"Lambda-Extension-Name").decode("utf-8", "replace")
        if not _NAME.fullmatch(name):
            _refuse(peer, 403, "Extension.InvalidExtensionName", "Empty or invalid extension name")
            return
        events = _events(request.body)
        if events is None:
            _refuse(peer, 400, "InvalidRequestFormat", "The body must be an object with a list of events")
            return
        each = next((each for each in self._all if each.name == name), None)
        is_external = each is not None and each.process >= 0
        if any(event not in (EVENTS if is_external else EVENTS[:1]) for event in events):
            kind = "an extension" if is_external else "an internal extension"
            _refuse(peer, 403, "Extension.InvalidEventType", f"Invalid event type of {kind}")
            return
        if each is not None and each.identifier:
            _refuse(peer, 403, "Extension.InvalidExtensionState", f"{name} has registered already")
            return
        if self.is_closed:
            _refuse(peer, 403, "Extension.RegistrationClosed", "Extension registration closed already")
            return
        if each is None:
            if len(self._all) >= EXTENSIONS_MAX:
                text = f"Extension limit ({EXTENSIONS_MAX}) reached"
                _refuse(peer, 400, "Extension.TooManyExtensions", text)
                return
            each = Extension(name)
            self._all.append(each)
        each.identifier, each.events = _identifier(), events
        told = {
            "functionName": self._environment.get("AWS_LAMBDA_FUNCTION_NAME", ""),
            "functionVersion": self._environment.get("AWS_LAMBDA_FUNCTION_VERSION", ""),
            "handler": self._environment.get("_HANDLER", ""),
        }
        peer.answer(200, json.dumps(told).encode(), f"Lambda-Extension-Identifier: {each.identifier}\r\n".encode())

    def _next(self, peer: Peer, each: Extension) -> None:
        if each.asking is not None:
            _refuse(peer, 403, "Extension.InvalidExtensionState", f"{each.name} waits for the next event already")
            return
        each.asking = peer
        self._asking[peer.fileno()] = each
        if each.due:
            self._give(each, each.due)

    def drop(self, peer: Peer) -> None:
        """Forget a connection."""
        each = self._asking.pop(peer.fileno(), None)
        if each is not None:
            each.asking = None

    def is_asking(self, peer: Peer) -> bool:
        """Tell whether a connection waits for an event."""
        return peer.fileno() in self._asking

    # --- events -----------------------------------------------------------------------------------------------

    def _give(self, each: Extension, event: bytes) -> None:
        peer, each.asking, each.due = each.asking, None, b""
        assert peer is not None
        del self._asking[peer.fileno()]
        peer.answer(200, event, f"Lambda-Extension-Event-Identifier: {_identifier()}\r\n".encode())

    def invoke(self, request_id: str, *, deadline_ms: int, arn: str, trace: str) -> None:
        """Tell those that asked for it of an invocation; all of them wait."""
        concerned = [each for each in self._all if "INVOKE" in each.events]
        if not concerned:
            return
        event: dict[str, Any] = {
            "eventType": "INVOKE",
            "deadlineMs": deadline_ms,
            "requestId": request_id,
            "invokedFunctionArn": arn,
            "tracing": {"type": "X-Amzn-Trace-Id", "value": trace},
        }
        body = json.dumps(event).encode()
        for each in concerned:
            self._give(each, body)

    def shut_down(self, reason: str, *, left_s: float) -> None:
        """Tell those that asked for it that all ends in so many seconds, and end the others.

        Args:
            reason: `spindown`, `timeout` or `failure`.
            left_s: seconds until they are killed.
        """
        deadline_ms = int((time.time() + left_s) * 1000)
        body = json.dumps({"eventType": "SHUTDOWN", "shutdownReason": reason, "deadlineMs": deadline_ms}).encode()
        for each in self._all:
            if each.end < 0:
                continue
            if "SHUTDOWN" not in each.events:
                with suppress(OSError):
                    signal.pidfd_send_signal(each.end, signal.SIGKILL)
                continue
            each.due = body
            if each.asking is not None:
                self._give(each, body)


def _events(body: bytes) -> tuple[str, ...] | None:
    try:
        found = json.loads(body).get("events", [])
    except (ValueError, AttributeError, RecursionError):
        return None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        return None
    return tuple(dict.fromkeys(found))


def _identifier() -> str:
    """Return what a version 4 UUID looks like, without the module, which every worker would have."""
    text = os.urandom(16).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def _refuse(peer: Peer, status: int, error_type: str, text: str) -> None:
    peer.answer(status, json.dumps({"errorMessage": text, "errorType": error_type}).encode())

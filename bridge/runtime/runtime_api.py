"""Lambda's Runtime API (2018-06-01) for one worker: frames of the daemon on one side, HTTP on loopback on the other.

Child side, standard library only. It runs where the Python bootstrap would, starts the function's own program (a
bootstrap, or the client of a language) as its child, and ends as that one ends. Answers and refusals are those of
semantics 6.1; what they leave open follows AWS's Runtime Interface Emulator. With extensions (`extensions.py`) an
invocation ends when all of them have asked for the next event, too, and the end of the worker is told to them.
"""

import json
import os
import re
import select
import signal
import time
from typing import Final, NoReturn

from bridge.runtime import loopback_http, posted
from bridge.runtime.bootstrap import (
    AHEAD,
    BEGIN_MARK,
    ERROR,
    INIT_ERROR,
    INVOKE_HEAD,
    LEAVING,
    OK,
    READY,
    RESPONSE_MAX_BYTES,
    RESULT_HEAD,
    SHUTDOWN,
    SKIPPED,
    Connection,
    ResponseTooLarge,
    claim,
)
from bridge.runtime.extensions import NO_TELEMETRY, PREFIX, RUNTIME_SHARE, SHUTDOWN_MAX_S, Extension, Extensions
from bridge.runtime.loopback_http import Peer, Request

PEERS_MAX: Final = 64
"""Connections at once; a further one is closed."""
EXIT_MAX_MS: Final = 1000
"""How long a program that has told of its failed init may take to end."""
KEPT_BACK_S: Final = 0.2
"""Before its timeout an invocation that has been answered waits no longer for its program, nor for extensions."""
ASKS_WITHIN_S: Final = 0.05
"""After an answer as late as that, they may take as long to ask for the next event."""
ANSWERED_BEFORE_S: Final = 0.02
"""Yet an answer is on its way to the daemon this long before the timeout."""
MEASURED_AFTER_MS: Final = 20
"""The memory is looked at after a longer invocation, and after each sixteenth."""
SPAWN_TRIES: Final = 100
SPAWN_AGAIN_S: Final = 0.02
_NEXT: Final = b"/2018-06-01/runtime/invocation/next"
_INIT_ERROR: Final = b"/2018-06-01/runtime/init/error"
_INVOCATION: Final = re.compile(rb"/2018-06-01/runtime/invocation/([^/]*)/(response|error)")
_RESTORE: Final = b"/2018-06-01/runtime/restore/"
_ACCEPTED: Final = b'{"status":"OK"}\n'
_PEAK: Final = re.compile(rb"VmHWM:\s*([0-9]+) kB")
_NO_LINE: Final = bytes.maketrans(b"\r\n\0", b"   ")


class RuntimeApi:
    """Serves one program until it ends, or the daemon ends us."""

    def __init__(self, daemon: Connection, tokens: int) -> None:
        self._daemon = daemon
        self._tokens = tokens
        self._poller = select.poll()
        self._peers: dict[int, Peer] = {}
        self._asking: Peer | None = None
        """Waits for the next invocation."""
        self._request_id = b""
        """Of the invocation that runs; empty: none does."""
        self._sequence = 0
        self._held: tuple[int, float, bytes] | None = None
        """Kind, duration and payload of an answer: the invocation ends when its program asks for the next, or ends."""
        self._began = 0.0
        self._is_ready = False
        self._init_error: bytes | None = None
        self._peak_kb = 0
        self._status_file = -1
        self._program = -1
        self._program_end = -1
        self._due: list[bytes] = []
        """An invocation that came before the extensions were ready for it."""
        self._is_open = False
        """We hear what the daemon sends."""
        self._is_ending = False
        self._deadline = 0.0
        """When an answer that waits for the program and for extensions is given without them, monotonic."""
        self._ends = 0.0
        """When the invocation times out, monotonic."""
        self._last_id = ""

    def run(self) -> NoReturn:
        """Serve until the end of the process."""
        self._began = time.perf_counter()
        settings = json.loads(bytes(self._daemon.read()[1:]))
        self._listener = loopback_http.listen()
        self._process_namespace: bool = settings["process_namespace"]
        environment = settings["environment"]
        environment["AWS_LAMBDA_RUNTIME_API"] = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._extensions = Extensions(environment=environment, spawn=_spawned, opt=settings["opt"])
        self._poller.register(self._listener, select.POLLIN)
        self._has_external = bool(settings["extensions"])
        if self._has_external:
            self._start_extensions(settings["extensions"])
        else:
            self._start(settings["commands"], environment)
        while True:
            if self._program < 0 and self._extensions.are_registered:
                self._start(settings["commands"], environment)
            self._advance()
            events = self._poller.poll(self._patience_ms())
            if not events:
                self._lose_patience()
            for descriptor, _ in events:
                # What the program sent before its end comes before the end, which stays readable.
                if descriptor != self._program_end or len(events) == 1:
                    self._attend(descriptor)

    def _advance(self) -> None:
        """End the invocation, and hand out the next one, where runtime and extensions wait for it."""
        while self._asking is not None and self._extensions.are_waiting:
            self._let_go()
            if not self._is_ready:
                self._be_ready()
            if self._due:
                self._hand_out(self._due.pop(0))
            elif self._daemon.has_frame():  # one that was taken back hands nothing out
                self._take_frame()
            else:
                self._listen(wanted=True)
                return
        self._listen(wanted=self._has_external)  # there a shutdown comes at any time

    def _listen(self, *, wanted: bool) -> None:
        if wanted is not self._is_open:
            self._is_open = wanted
            if wanted:
                self._poller.register(self._daemon, select.POLLIN)
            else:
                self._poller.unregister(self._daemon)

    def _take_frame(self) -> None:
        frame = self._daemon.read()
        if frame[0] == SHUTDOWN:
            self._shut_down(bytes(frame[1:]).decode())
            os._exit(0)
        if self._asking is not None and self._extensions.are_waiting:
            self._hand_out(frame)
        else:
            self._due.append(bytes(frame))

    def _patience_ms(self) -> float | None:
        if self._init_error is not None:
            return EXIT_MAX_MS
        if self._held is not None:
            return max(0.0, self._deadline - time.monotonic()) * 1000
        return None

    def _lose_patience(self) -> None:
        if self._init_error is not None:
            self._fail_init()  # it has told of its error and does not end
        if self._held is not None:  # its caller has waited long enough for what comes after the answer
            self._send(LEAVING, 0, 0.0, b"")
            self._let_go()
            self._shut_down("timeout")
            os._exit(1)

    # --- extensions -------------------------------------------------------------------------------------------

    def _start_extensions(self, names: list[str]) -> None:
        try:
            for end in self._extensions.start(names):
                self._poller.register(end, select.POLLIN)
        except OSError as error:
            kind = "PermissionDenied" if isinstance(error, PermissionError) else "UnknownError"
            _write_log(f"EXTENSION\tName: {names[0]}\tState: LaunchError\tEvents: []\tError Type: {kind}\n".encode())
            self._refuse_start((error.strerror or str(error)).lower(), "Extension.LaunchError")

    def _extension_ended(self, each: Extension, status: int) -> None:
        """Fail what runs, as AWS does; the worker ends."""
        if self._is_ending:
            return
        text = posted.status_text(status)
        kind = "Extension.Crash"
        if each.error_type:
            kind = f"Extension.{'ExitError' if self._is_ready else 'InitError'}"
        if not self._is_ready:
            _write_log(self._extensions.unready())
            self._refuse_start(text, kind)
        if self._request_id or self._held is not None:
            message = f"RequestId: {self._last_id} Error: {text}"
            self._request_id = b""
            self._held = None
            _write_log(f"{message}\n{kind}\n".encode())
            self._send(LEAVING, 0, 0.0, b"")
            duration_ms = (time.perf_counter() - self._began) * 1000
            self._send(
                ERROR, self._sequence, duration_ms, json.dumps({"errorType": kind, "errorMessage": message}).encode()
            )
        self._shut_down("failure")
        os._exit(1)

    def _shut_down(self, reason: str) -> None:
        """Let the runtime and the extensions end, for as long as they may; then this process ends, and all with it."""
        if self._is_ending or not self._has_external:
            return
        self._is_ending = True
        if self._is_ready and reason == "failure":  # which the daemon does not know of yet
            self._send(LEAVING, 0, 0.0, b"")
        deadline = time.monotonic() + SHUTDOWN_MAX_S
        self._listen(wanted=False)
        if self._program_end >= 0:
            self._poller.unregister(self._program_end)
            is_quiet = reason == "spindown"
            try:
                signal.pidfd_send_signal(self._program_end, signal.SIGTERM if is_quiet else signal.SIGKILL)
                select.select((self._program_end,), (), (), SHUTDOWN_MAX_S * RUNTIME_SHARE)
                signal.pidfd_send_signal(self._program_end, signal.SIGKILL)
            except OSError:
                pass  # it has ended
        self._extensions.shut_down(reason, left_s=deadline - time.monotonic())
        while self._extensions.are_living and (left_s := deadline - time.monotonic()) > 0:
            for descriptor, _ in self._poller.poll(left_s * 1000):
                self._attend(descriptor)

    # --- the program ------------------------------------------------------------------------------------------

    def _start(self, commands: list[list[str]], environment: dict[str, str]) -> None:
        """Start the first of the programs that is there; without one, or if it cannot run, end with AWS's words."""
        for command in commands:
            if len(commands) > 1 and not os.path.isfile(command[0]):
                continue
            try:
                self._program = _spawned(command, environment)
            except OSError as error:
                reason = os.strerror(error.errno or 0).lower()
                self._refuse_start(f"fork/exec {command[0]}: {reason}")
            self._program_end = os.pidfd_open(self._program)
            self._poller.register(self._program_end, select.POLLIN)
            self._status_file = os.open(f"/proc/{self._program}/status", os.O_RDONLY | os.O_CLOEXEC)
            return
        names = " ".join(command[0] for command in commands)
        self._refuse_start(f"Couldn't find valid bootstrap(s): [{names}]")

    def _refuse_start(self, text: str, error_type: str = "Runtime.InvalidEntrypoint") -> NoReturn:
        # Whoever waits for it knows the request id that belongs before the text.
        error = {"errorType": error_type, "platformText": text}
        self._send(INIT_ERROR, 0, 0.0, json.dumps(error).encode())
        self._shut_down("failure")
        os._exit(1)

    def _program_ended(self) -> NoReturn:
        """End as the program has ended, so that its status is ours."""
        _, status = os.waitpid(self._program, 0)
        if self._held is not None:
            self._send(LEAVING, 0, 0.0, b"")  # or another invocation would be sent, to nobody
            self._let_go()
        if self._init_error is not None:
            self._fail_init()
        self._shut_down("failure")
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number != signal.SIGKILL:
                signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)

    def _fail_init(self) -> NoReturn:
        self._send(INIT_ERROR, 0, 0.0, self._init_error or b"{}")
        self._shut_down("failure")
        os._exit(1)

    # --- both sides -------------------------------------------------------------------------------------------

    def _attend(self, descriptor: int) -> None:
        peer = self._peers.get(descriptor)
        if peer is not None:
            if not peer.receive():
                self._drop(peer)
                return
            try:
                for request in peer.requests():
                    self._serve(peer, request)
            except (loopback_http.NotHttp, OSError):
                self._drop(peer)
                return
            if peer.is_last and peer is not self._asking and not self._extensions.is_asking(peer):
                self._drop(peer)
        elif descriptor == self._daemon.fileno():
            self._take_frame()
        elif descriptor == self._program_end:
            self._program_ended()
        elif descriptor == self._listener.fileno():
            self._accept()
        elif (ended := self._extensions.ended(descriptor)) is not None:
            self._poller.unregister(descriptor)
            self._extension_ended(*ended)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        is_ours = loopback_http.is_from_here(connection, only_these_processes=self._process_namespace)
        if not is_ours or len(self._peers) >= PEERS_MAX:
            connection.close()
            return
        peer = Peer(connection, body_max=RESPONSE_MAX_BYTES)
        self._peers[peer.fileno()] = peer
        self._poller.register(peer, select.POLLIN)

    def _drop(self, peer: Peer) -> None:
        if peer is self._asking:
            self._asking = None
        self._extensions.drop(peer)
        self._poller.unregister(peer)
        del self._peers[peer.fileno()]
        peer.close()

    def _serve(self, peer: Peer, request: Request) -> None:
        if request.method == b"GET" and request.path == _NEXT:
            self._next(peer)
            return
        if request.method == b"POST" and (found := _INVOCATION.fullmatch(request.path)):
            if found[1] != self._request_id or not self._request_id:
                self._refuse(peer, 400, "InvalidRequestID", "Invalid request ID")
            elif found[2] == b"response":
                self._take_response(peer, request)
            else:
                self._take_error(peer, request)
        elif request.method == b"POST" and request.path == _INIT_ERROR:
            self._take_init_error(peer, request)
        elif request.path.startswith(PREFIX):
            self._extensions.serve(peer, request)
        elif request.method == b"PUT" and (name := NO_TELEMETRY.get(request.path)):
            self._refuse(peer, 202, f"{name}.NotSupported", f"{name} API is not supported")  # the emulator's answer
        elif request.path.startswith(_RESTORE):
            self._refuse(peer, 403, "NotSupported", "SnapStart is not offered here.")
        else:
            self._refuse(peer, 404, "NotFound", "404 page not found")

    def _refuse(self, peer: Peer, status: int, error_type: str, text: str) -> None:
        peer.answer(status, json.dumps({"errorMessage": text, "errorType": error_type}).encode())

    # --- invocations ------------------------------------------------------------------------------------------

    def _next(self, peer: Peer) -> None:
        if self._request_id or self._asking is not None or self._init_error is not None:
            state = "Running" if self._request_id else "Ready" if self._asking is not None else "InitError"
            text = f"Transition from {state} to Ready failed for runtime. Error: State transition is not allowed"
            self._refuse(peer, 403, "InvalidStateTransition", text)
            return
        self._asking = peer

    def _be_ready(self) -> None:
        self._is_ready = self._extensions.is_closed = True
        if self._extensions.are_any:
            _write_log(self._extensions.lines())
        self._measure()
        self._send(READY, 0, (time.perf_counter() - self._began) * 1000, b"")

    def _hand_out(self, frame: bytes | memoryview) -> None:
        """Give an invocation to the client that asks, and to the extensions; one that was taken back is skipped."""
        _, flags, sequence, timeout_ms, a, b, c, d = INVOKE_HEAD.unpack_from(frame)
        if flags:
            if flags & AHEAD and not claim(self._tokens):
                self._send(SKIPPED, sequence, 0.0, b"")
                return
            _write_log(BEGIN_MARK % sequence)
        a += INVOKE_HEAD.size
        b += a
        c += b
        d += c
        peer, self._asking = self._asking, None
        assert peer is not None
        self._sequence = sequence
        self._request_id = bytes(frame[INVOKE_HEAD.size : a])
        deadline_ms = int(time.time() * 1000) + timeout_ms
        headers = (
            b"Lambda-Runtime-Aws-Request-Id: %b\r\nLambda-Runtime-Deadline-Ms: %d\r\n"
            b"Lambda-Runtime-Invoked-Function-Arn: %b\r\n"
        ) % (self._request_id, deadline_ms, bytes(frame[a:b]))
        if c > b:
            headers += b"Lambda-Runtime-Trace-Id: %b\r\n" % bytes(frame[b:c])
        if d > c:  # JSON, where a line end means as much as a space
            headers += b"Lambda-Runtime-Client-Context: %b\r\n" % bytes(frame[c:d]).translate(_NO_LINE)
        self._began = time.perf_counter()
        self._ends = time.monotonic() + timeout_ms / 1000
        self._deadline = self._ends - KEPT_BACK_S
        if self._extensions.are_any:
            self._last_id = self._request_id.decode()
            trace = bytes(frame[b:c]).decode()
            self._extensions.invoke(self._last_id, deadline_ms=deadline_ms, arn=bytes(frame[a:b]).decode(), trace=trace)
        peer.answer(200, frame[d:] if len(frame) > d else b"{}", headers)
        if peer.is_last:
            self._drop(peer)

    def _take_response(self, peer: Peer, request: Request) -> None:
        if request.is_too_large:
            self._end_invocation(ERROR, ResponseTooLarge().payload())
            text = f"Exceeded maximum allowed payload size ({RESPONSE_MAX_BYTES} bytes)."
            self._refuse(peer, 413, "RequestEntityTooLarge", text)
            return
        trailers = request.trailers
        if trailers and (error_type := loopback_http.find_header(trailers, b"Lambda-Runtime-Function-Error-Type")):
            body = loopback_http.find_header(trailers, b"Lambda-Runtime-Function-Error-Body")
            self._end_invocation(ERROR, posted.error(posted.decoded(body), error_type))
        elif posted.HTTP_ANSWER.search(request.head):
            self._end_invocation(OK, posted.whole_answer(request.body))
        else:
            self._end_invocation(OK, request.body)
        peer.answer(202, _ACCEPTED)

    def _take_error(self, peer: Peer, request: Request) -> None:
        error_type = request.header(b"Lambda-Runtime-Function-Error-Type")
        if request.is_too_large:
            self._end_invocation(ERROR, posted.error(b"", error_type))
            self._refuse(peer, 413, "RequestEntityTooLarge", "Exceeded maximum allowed payload size.")
            return
        self._end_invocation(ERROR, posted.error(request.body, error_type))
        peer.answer(202, _ACCEPTED)

    def _take_init_error(self, peer: Peer, request: Request) -> None:
        if self._is_ready or self._init_error is not None:
            text = "Transition from Ready to InitError failed for runtime. Error: State transition is not allowed"
            self._refuse(peer, 403, "InvalidStateTransition", text)
            return
        self._init_error = posted.error(request.body, request.header(b"Lambda-Runtime-Function-Error-Type"))
        peer.answer(202, _ACCEPTED)

    def _end_invocation(self, kind: int, payload: bytes) -> None:
        self._request_id = b""
        self._deadline = max(self._deadline, min(time.monotonic() + ASKS_WITHIN_S, self._ends - ANSWERED_BEFORE_S))
        self._held = kind, (time.perf_counter() - self._began) * 1000, payload

    def _let_go(self) -> None:
        if self._held is not None:
            kind, duration_ms, payload = self._held
            self._held = None
            if self._extensions.are_any:  # what they have done meanwhile is part of it
                duration_ms = (time.perf_counter() - self._began) * 1000
            self._send(kind, self._sequence, duration_ms, payload)

    def _send(self, kind: int, sequence: int, duration_ms: float, payload: bytes) -> None:
        if not sequence & 15 or duration_ms > MEASURED_AFTER_MS or sequence < 2:
            self._measure()
        length = RESULT_HEAD.size - 4 + len(payload)
        self._daemon.send(RESULT_HEAD.pack(length, kind, sequence, duration_ms, self._peak_kb) + payload)

    def _measure(self) -> None:
        """Note the most memory that the program had; what it has started is sampled from outside."""
        if self._status_file < 0:
            return
        try:
            found = _PEAK.search(os.pread(self._status_file, 4096, 0))
        except OSError:
            return
        if found is not None:
            self._peak_kb = int(found[1])


def _spawned(command: list[str], environment: dict[str, str]) -> int:
    for left in range(SPAWN_TRIES, -1, -1):
        try:
            return os.posix_spawn(
                command[0],
                command,
                environment,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGXFSZ),
            )
        except BlockingIOError:  # as many processes as the function may have: those of a worker that is being ended
            if not left:
                raise
            time.sleep(SPAWN_AGAIN_S)
    raise AssertionError


def _write_log(line: bytes) -> None:
    while True:
        try:
            os.write(1, line)
        except BlockingIOError:  # the program has made the pipe so, and it is full
            select.select((), (1,), ())
            continue
        except OSError:
            pass  # nobody reads any more: the end of this process follows
        return


def serve(socket_descriptor: int, tokens_descriptor: int) -> NoReturn:
    """Be a worker on these descriptors until the end of the process."""
    RuntimeApi(Connection(socket_descriptor), tokens_descriptor).run()

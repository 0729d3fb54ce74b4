"""The worker's own code: import the handler, run one event at a time, say how each ended; child side.

What a function sees (context, environment, log format, error payloads) follows awslambdaric 4.2.2 and the
recordings of lambda-semantics; frames to and from the daemon are those of `frames.py`. Standard library only.
"""

import atexit
import ctypes
import importlib
import importlib.util
import io
import json
import logging
import os
import resource
import socket
import struct
import sys
import time
import traceback
import types
from collections.abc import Callable
from typing import Any, Final, NoReturn

if __name__ == "__main__":  # exec'd instead of forked: the file beside this one, under its own name only
    _package = types.ModuleType("bridge.runtime")
    _package.__path__ = [os.path.dirname(os.path.abspath(__file__))]
    sys.modules["bridge"], sys.modules["bridge.runtime"] = types.ModuleType("bridge"), _package

from bridge.runtime import context, encoding, log_records, wheels
from bridge.runtime.context import Fault, LambdaContext

if __name__ == "__main__":
    for _name in [name for name in sys.modules if name.partition(".")[0] == "bridge"]:
        sys.modules.pop(_name, None)

INIT: Final = 0
INVOKE: Final = 1
READY: Final = 2
INIT_ERROR: Final = 3
OK: Final = 4
ERROR: Final = 5
SKIPPED: Final = 6
LEAVING: Final = 7
SHUTDOWN: Final = 8
AHEAD: Final = 1
MARK: Final = 2
LENGTH: Final = struct.Struct("=I")
INVOKE_HEAD: Final = struct.Struct("=BBIIHHHI")
"""kind, flags, sequence, run time in ms, lengths of request id, arn, trace id, client context."""
RESULT_HEAD: Final = struct.Struct("=IBIdI")
"""length, kind, sequence, duration in ms, peak resident memory in KiB."""
BEGIN_MARK: Final = b"\0bridge:begin:%d\0"
"""Written into the log before a frame that was sent ahead: what follows belongs to that invocation."""
NOT_RUN: Final = b"EXTENSION\tName: %b\tState: LaunchError\tEvents: []\tError Type: Extension.NotRunHere\n"
"""Of each extension: they run beside programs behind the Runtime API alone."""
MESSAGE_MAX_CHARS: Final = 256 * 1024
RESPONSE_MAX_BYTES: Final = 6 * 1024 * 1024 + 100
_NO_BREAK_SPACE: Final = "\u00a0"
_OWN_FILES: Final = frozenset({__file__, context.__file__, encoding.__file__})
_BUFFER_BYTES: Final = 64 * 1024

_flush_c = ctypes.CDLL(None).fflush
_flush_c.argtypes = [ctypes.c_void_p]


def load_handler(text: str) -> Callable[[Any, LambdaContext], Any]:
    """Import `dir/module.function` (semantics 6.3).

    Raises:
        Fault: with AWS's name and text for what is wrong.
    """
    try:
        module_name, function = text.rsplit(".", 1)
    except ValueError as error:
        raise Fault("Runtime.MalformedHandlerName", f"Bad handler '{text}': {error}") from None
    if module_name.split(".")[0] in sys.builtin_module_names:
        message = f"Cannot use built-in module {module_name} as a handler module"
        raise Fault("Runtime.BuiltInModuleConflict", message)
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        fault = Fault("Runtime.ImportModuleError", f"Unable to import module '{module_name}': {error}")
        fault.hint = wheels.hint(error, sys.path)
        raise fault from None
    except SyntaxError as error:
        trace = [f'  File "{error.filename}" Line {error.lineno}\n    {error.text}']
        message = f"Syntax error in module '{module_name}': {error}"
        raise Fault("Runtime.UserCodeSyntaxError", message, trace) from None
    try:
        handler: Callable[[Any, LambdaContext], Any] = getattr(module, function)
    except AttributeError:
        message = f"Handler '{function}' missing on module '{module_name}'"
        raise Fault("Runtime.HandlerNotFound", message) from None
    return handler


class Connection:
    """Length-prefixed frames over the worker's socket."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self.send = self._socket.sendall
        self._receive = self._socket.recv_into
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    def fileno(self) -> int:
        """Return the descriptor, for a poll."""
        return self._socket.fileno()

    def has_frame(self) -> bool:
        """Tell whether the beginning of a frame has been read already: a poll would not tell of it."""
        return self._end > self._start

    def read(self) -> memoryview:
        """Return the next frame; valid until the next read. Ends the process when the daemon is gone."""
        start = self._start
        while self._end - start < 4:
            start = self._fill(4)
        (length,) = LENGTH.unpack_from(self._buffer, start)
        while self._end - start < 4 + length:
            start = self._fill(4 + length)
        self._start = start + 4 + length
        return self._view[start + 4 : self._start]

    def _fill(self, size: int) -> int:
        start, end = self._start, self._end
        if start == end:
            start = end = 0
        elif start + size > len(self._buffer):
            rest = bytes(self._view[start:end])
            start, end = 0, len(rest)
            if size > len(self._buffer):
                self._buffer = bytearray(size)
                self._view = memoryview(self._buffer)
            self._view[:end] = rest
        count = self._receive(self._view[end:] if end else self._view)
        if not count:
            os._exit(0)
        self._start, self._end = start, end + count
        return start


def claim(tokens: int) -> bool:
    """Take the token of a frame that was sent ahead; no token means that the daemon took the frame back."""
    try:
        os.read(tokens, 8)
    except BlockingIOError:
        return False
    return True


class Exchange:
    """What a handler is given and how its answer or its error is written, wherever it runs."""

    _own_files: frozenset[str] = _OWN_FILES
    """Left out at the top of stack traces."""

    def __init__(self) -> None:
        self._rewrite: list[tuple[str, str]] = []
        self._dumps: Callable[[Any], str] = encoding.make_encoder(ascii_only=True)

    @staticmethod
    def _unmarshal(payload: memoryview) -> Any:
        try:
            return encoding.loads(str(payload, "utf-8")) if payload else {}
        except (ValueError, RecursionError) as error:
            raise Fault("Runtime.UnmarshalError", f"Unable to unmarshal input: {error}") from None

    def _marshal(self, value: Any) -> bytes:
        if isinstance(value, bytes):
            result = value
        else:
            try:
                result = self._dumps(value).encode()
            except Exception as error:  # noqa: BLE001 - user objects
                raise Fault("Runtime.MarshalError", f"Unable to marshal response: {_text(error)}") from None
        if len(result) > RESPONSE_MAX_BYTES:
            raise ResponseTooLarge
        return result

    def _describe(self, exception: BaseException, request_id: str) -> dict[str, Any]:
        try:
            frames = traceback.extract_tb(exception.__traceback__)
            first = next((i for i, frame in enumerate(frames) if frame.filename not in self._own_files), len(frames))
            # As plain tuples: AWS's lists have no marker lines (^^^^) under the source.
            trace = traceback.format_list([(f.filename, f.lineno or 0, f.name, f.line) for f in frames[first:]])
        except Exception:  # noqa: BLE001 - a user's traceback may be anything
            trace = []
        return self._error(_text(exception), type(exception).__name__, trace, request_id)

    def _error(self, message: str, error_type: str, trace: list[str], request_id: str) -> dict[str, Any]:
        if len(message) > MESSAGE_MAX_CHARS:
            message = message[:MESSAGE_MAX_CHARS]
        trace = [self._shown(line) for line in trace]
        return {"errorMessage": message, "errorType": error_type, "requestId": request_id, "stackTrace": trace}

    def _shown(self, line: str) -> str:
        for real, shown in self._rewrite:
            line = line.replace(real, shown)
        return line

    def _encode_error(self, error: dict[str, Any]) -> bytes:
        try:
            return self._dumps(error).encode()
        except UnicodeEncodeError:
            return json.dumps(error).encode()


class Worker(Exchange):
    """Runs events one by one for as long as the daemon keeps the socket open."""

    def __init__(self, connection: Connection, tokens: int) -> None:
        super().__init__()
        self._connection = connection
        self._tokens = tokens
        self._request_id = ""
        self._peak_kb = 0
        self._last_trace: str | None = None
        self._logs_json = False

    def run(self) -> NoReturn:
        """Serve until the end of the process."""
        try:
            handler = self._initialise(json.loads(bytes(self._connection.read()[1:])))
            while True:
                self._serve_one(handler)
        except SystemExit as error:
            _leave(error.code)
        except BaseException:  # noqa: BLE001 - what is no Exception ends the environment, as on AWS
            traceback.print_exc()
            _leave(1)

    # --- init -------------------------------------------------------------------------------------------------

    def _initialise(self, settings: dict[str, Any]) -> Callable[[Any, LambdaContext], Any]:
        began = time.perf_counter()
        os.environ.clear()
        os.environ.update(settings["environment"])
        time.tzset()
        sys.path[:] = [settings["task_root"], *settings["path"], *sys.path, *settings["packages"]]
        sys.argv = [""]
        sys.path_importer_cache.clear()
        self._rewrite = [(real, shown) for real, shown in settings["rewrite"]]
        self._dumps = encoding.make_encoder(ascii_only=sys.version_info < (3, 12))
        LambdaContext.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        LambdaContext.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        LambdaContext.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        LambdaContext.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        LambdaContext.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self._logs_json = os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON"
        _open_streams()
        _open_logging(self, log_records.JsonFormatter(self._shown) if self._logs_json else None)
        for name in settings["extensions"]:
            os.write(1, NOT_RUN % name.encode())
        try:
            handler = load_handler(settings["handler"])
        except Fault as fault:
            self._fail_init(self._error(fault.message, fault.error_type, fault.trace or [], ""), fault.hint)
        except Exception as error:  # noqa: BLE001 - user code
            self._fail_init(self._describe(error, ""))
        _flush()
        elapsed = (time.perf_counter() - began) * 1000
        self._connection.send(RESULT_HEAD.pack(RESULT_HEAD.size - 4, READY, 0, elapsed, self._measure()))
        return handler

    def _fail_init(self, error: dict[str, Any], hint: str = "") -> NoReturn:
        self._log_error(error)
        if hint:
            logging.getLogger("bridge").warning(self._shown(hint))
        _flush()
        self._send(INIT_ERROR, 0, 0.0, self._encode_error(error))
        os._exit(1)

    # --- one event --------------------------------------------------------------------------------------------

    def _serve_one(self, handler: Callable[[Any, LambdaContext], Any]) -> None:
        frame = self._connection.read()
        _, flags, sequence, timeout_ms, a, b, c, d = INVOKE_HEAD.unpack_from(frame)
        if flags:
            if flags & AHEAD and not claim(self._tokens):
                self._send(SKIPPED, sequence, 0.0, b"")
                return
            os.write(1, BEGIN_MARK % sequence)
        began = time.perf_counter()
        a += INVOKE_HEAD.size
        self._request_id = request_id = str(frame[INVOKE_HEAD.size : a], "utf-8")
        b += a
        c += b
        trace = str(frame[b:c], "utf-8") if c > b else ""
        if trace != self._last_trace:
            self._last_trace = os.environ["_X_AMZN_TRACE_ID"] = trace
        kind = OK
        try:
            context_text = str(frame[c : c + d], "utf-8") if d else ""
            d += c
            seen = LambdaContext(request_id, str(frame[a:b], "utf-8"), context_text, timeout_ms)
            result = self._marshal(handler(self._unmarshal(frame[d:]), seen))
        except Fault as fault:
            kind, result = ERROR, self._report(fault.message, fault.error_type, fault.trace or [])
        except Exception as error:  # noqa: BLE001 - user code
            kind, result = ERROR, self._report_exception(error)
        _flush()
        self._send(kind, sequence, (time.perf_counter() - began) * 1000, result)

    def _send(self, kind: int, sequence: int, duration_ms: float, payload: bytes) -> None:
        if not sequence & 15 or duration_ms > 1 or sequence < 2:
            self._measure()
        length = RESULT_HEAD.size - 4 + len(payload)
        self._connection.send(RESULT_HEAD.pack(length, kind, sequence, duration_ms, self._peak_kb) + payload)

    def _measure(self) -> int:
        self._peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return self._peak_kb

    # --- errors -----------------------------------------------------------------------------------------------

    def _report(self, message: str, error_type: str, trace: list[str]) -> bytes:
        error = self._error(message, error_type, trace, self._request_id)
        self._log_error(error)
        return self._encode_error(error)

    def _report_exception(self, exception: Exception) -> bytes:
        if isinstance(exception, ResponseTooLarge):
            return exception.payload()
        error = self._describe(exception, self._request_id)
        self._log_error(error)
        return self._encode_error(error)

    def _log_error(self, error: dict[str, Any]) -> None:
        """Write the [ERROR] record: one log record, its lines joined by carriage returns, as AWS's runtime does."""
        if self._logs_json:
            os.write(1, self._encode_error(log_records.error_record(error)) + b"\n")
            return
        lines = [f"[ERROR] {error['errorType']}: {error['errorMessage']}", "Traceback (most recent call last):"]
        for item in error["stackTrace"]:
            for line in item.splitlines():
                text = line.lstrip(" ")
                lines.append(_NO_BREAK_SPACE * (len(line) - len(text)) + text)
        os.write(1, ("\r".join(lines) + "\n").encode(errors="backslashreplace"))

    @property
    def request_id(self) -> str:
        """Id of the running or last invocation, for the log format."""
        return self._request_id


class ResponseTooLarge(Exception):
    """The answer has more bytes than Lambda takes."""

    def payload(self) -> bytes:
        """Return the error as AWS words it."""
        text = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_MAX_BYTES} bytes)."
        return json.dumps({"errorMessage": text, "errorType": "Function.ResponseSizeTooLarge"}).encode()


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a user's __str__
        return f"<{type(error).__name__} whose text could not be made>"


def _flush() -> None:
    """Bring everything written so far into the pipe: Python's streams and C's."""
    if sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__:  # ours write through
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except Exception:  # noqa: BLE001, S110 - replaced, detached or closed by user code
            pass
    _flush_c(None)


def _open_streams() -> None:
    """Unbuffered standard streams, as AWS has them: what was written is in the log even after a kill."""
    for name, descriptor, errors in (("stdout", 1, "strict"), ("stderr", 2, "backslashreplace")):
        raw = io.FileIO(descriptor, "w", closefd=False)
        stream = io.TextIOWrapper(raw, encoding="utf-8", errors=errors, write_through=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


class _LogHandler(logging.Handler):
    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self._worker = worker

    def emit(self, record: logging.LogRecord) -> None:
        record.aws_request_id = self._worker.request_id
        sys.stdout.write(self.format(record))


def _open_logging(worker: Worker, formatter: logging.Formatter | None) -> None:
    logging.Formatter.converter = time.gmtime
    text = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n"
    handler = _LogHandler(worker)
    handler.setFormatter(formatter or logging.Formatter(text, "%Y-%m-%dT%H:%M:%S"))
    root = logging.getLogger()
    level = log_records.level_of(os.environ.get("AWS_LAMBDA_LOG_LEVEL", ""))
    if level is not None:
        root.setLevel(level)
    root.addHandler(handler)


def _leave(code: object) -> NoReturn:
    """End the process as the interpreter would end a script."""
    if code is None:
        status = 0
    elif isinstance(code, int):
        status = code & 0xFF
    else:
        sys.stderr.write(f"{code}\n")
        status = 1
    try:
        atexit._run_exitfuncs()  # noqa: SLF001 - the worker ends by _exit, as a forked child must
        _flush()
    finally:
        os._exit(status)


def rehearse() -> None:
    """Do once, for nobody, what starting a worker does: each page that a fork shares costs a fault when written."""
    dumps = encoding.make_encoder(ascii_only=True)
    text = dumps({name: name for name in os.environ} | {"a": [1, 2.5, None, {"b": "c"}]})
    encoding.loads(text)
    json.loads(text)
    compile("def handler(event, context):\n    return event\n", "rehearsal", "exec")
    importlib.util.find_spec("no_such_module_anywhere")
    logging.Formatter("%(message)s").format(logging.makeLogRecord({"msg": "x"}))
    io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True).write("x")
    resource.getrusage(resource.RUSAGE_SELF)
    _flush_c(None)


def serve(socket_descriptor: int, tokens_descriptor: int) -> NoReturn:
    """Be a worker on these descriptors until the end of the process."""
    Worker(Connection(socket_descriptor), tokens_descriptor).run()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))

"""Runs handlers in this process, for tests: breakpoints and coverage work; memory and time limits are not enforced."""

import asyncio
import contextlib
import importlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from bridge.core.function import FunctionVersion
from bridge.core.invocation import Invocation, InvocationResult, ResultKind
from bridge.runtime import bootstrap, encoding, environment, results
from bridge.runtime.context import Fault, LambdaContext

_SLOTS: Final = 1000
_RESERVED: Final = ("AWS_", "LAMBDA_", "_HANDLER")

Handler = Callable[[Any, LambdaContext], Any]
Listener = Callable[[FunctionVersion, Invocation, InvocationResult], None]


@dataclass(slots=True, eq=False)
class _Call:
    version: FunctionVersion
    invocation: Invocation
    future: "asyncio.Future[InvocationResult]"


class InProcessRuntime:
    """`ports.Runtime` whose handlers run when its owner says so, one at a time, outside of any event loop.

    What a handler sees is Lambda's: the event after its way through JSON, the context, the environment, its folder
    as the working directory and first on the path, errors as AWS's runtime reports them. Module state lives until
    `close`, as in a warm worker.

    Args:
        ended: is told of every invocation that ended.
        region: of functions that name none.
    """

    def __init__(self, ended: Listener, *, region: str) -> None:
        self._ended = ended
        self._region = region
        self._calls: deque[_Call] = deque()
        self._functions: dict[str, _Function] = {}
        self._callbacks: list[Callable[[], None]] = []

    @property
    def waiting(self) -> int:
        """Invocations that `run_next` would run."""
        return len(self._calls)

    def run_next(self) -> None:
        """Run the handler whose turn it is. What is no Exception (Ctrl-C, a failed test) comes out of it."""
        call = self._calls.popleft()
        result = self._function(call.version).run(call.invocation)
        if not call.future.done():
            call.future.set_result(result)
        self._ended(call.version, call.invocation, result)

    def module(self, version: FunctionVersion) -> ModuleType:
        """Return the module that a function's handler is in, imported as its first invocation would."""
        return self._function(version).module()

    def _function(self, version: FunctionVersion) -> "_Function":
        known = self._functions.get(version.revision)
        if known is None:
            known = self._functions[version.revision] = _Function(version, region=self._region)
        return known

    def close(self) -> None:
        """Forget the functions' modules: whoever comes next imports them anew."""
        for function in self._functions.values():
            function.forget()
        self._functions.clear()

    # --- ports.Runtime ------------------------------------------------------------------------

    async def invoke(self, version: FunctionVersion, invocation: Invocation) -> InvocationResult:
        """Wait for `run_next`."""
        call = _Call(version, invocation, asyncio.get_running_loop().create_future())
        self._calls.append(call)
        try:
            return await call.future
        finally:
            if call in self._calls:  # cancelled before its turn
                self._calls.remove(call)
            for callback in self._callbacks:
                callback()

    def free_slots(self, version: FunctionVersion, *, enough: int | None = None) -> int:
        """Return what is left of a thousand."""
        del version, enough
        return _SLOTS - len(self._calls)

    def on_free(self, callback: Callable[[], None]) -> None:
        """Call back after each invocation."""
        self._callbacks.append(callback)

    def retire(self, name: str, *, keep_revision: str | None, also_keep: Collection[str] = ()) -> None:
        """Do nothing: configurations do not change here."""


class _Function(bootstrap.Exchange):
    """One version: its modules, its environment, and the exchange of events and answers."""

    _own_files = frozenset({__file__, bootstrap.__file__, encoding.__file__})

    def __init__(self, version: FunctionVersion, *, region: str) -> None:
        super().__init__()
        self._dumps = encoding.make_encoder(ascii_only=sys.version_info < (3, 12))
        self._version = version
        self._folder = os.path.realpath(version.code)
        self._modules = _Modules(self._folder, layers=_layer_paths(version))
        self._handler: Handler | None = None
        stream = f"{time.strftime('%Y/%m/%d')}/[{version.version}]in-process"
        names = environment.variables(version, stream=stream, task_root=self._folder, scratch="/tmp", region=region)  # noqa: S108 - as on AWS
        own = {name: value for name, value in names.items() if name.startswith(_RESERVED)}
        self._environment = dict(version.environment) | own
        self._context: type[LambdaContext] = type(
            "LambdaContext",
            (LambdaContext,),
            {
                "function_name": version.plain_name,
                "function_version": version.version,
                "memory_limit_in_mb": str(version.memory_mb),
                "log_group_name": version.log_group,
                "log_stream_name": stream,
            },
        )

    def run(self, invocation: Invocation) -> InvocationResult:
        """Run one event and return how it ended."""
        began = time.perf_counter()
        kind = ResultKind.FUNCTION_ERROR
        with self._inside():
            try:
                answer = self._loaded()(self._event(invocation), self._seen(invocation))
                payload, kind = self._marshal(answer), ResultKind.OK
            except Fault as fault:
                trace = fault.trace or []
                payload = self._failed(self._error(fault.message, fault.error_type, trace, invocation.request_id))
            except bootstrap.ResponseTooLarge as error:
                payload = error.payload()
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else error.code is not None
                payload = results.exited((code & 0xFF) << 8).payload(invocation.request_id)
            except Exception as error:  # noqa: BLE001 - user code
                payload = self._failed(self._describe(error, invocation.request_id))
        duration_ms = (time.perf_counter() - began) * 1000
        return results.result(
            self._version.version, duration_ms, billed_ms=results.billed(duration_ms), used_mb=0, init_ms=None,
            kind=kind, payload=payload, log_tail=b"", log_stream=self._context.log_stream_name,
        )  # fmt: skip

    def _failed(self, error: dict[str, Any]) -> bytes:
        """Show an error on standard error, which pytest prints with a test that fails, and return its JSON."""
        trace = "".join(error["stackTrace"])
        sys.stderr.write(f"[ERROR] {error['errorType']}: {error['errorMessage']}\n{trace}")
        return self._encode_error(error)

    def _event(self, invocation: Invocation) -> Any:
        return self._unmarshal(memoryview(invocation.payload))

    def _seen(self, invocation: Invocation) -> LambdaContext:
        client_context = invocation.client_context.decode("utf-8", "replace")
        timeout_ms = self._version.timeout_s * 1000
        return self._context(invocation.request_id, invocation.invoked_arn, client_context, timeout_ms)

    def _loaded(self) -> Handler:
        if self._handler is None:
            self._handler = bootstrap.load_handler(self._version.handler)
        return self._handler

    def module(self) -> ModuleType:
        """Return the handler's module."""
        name = self._version.handler.rpartition(".")[0].replace("/", ".")
        with self._inside():
            return importlib.import_module(name)

    def forget(self) -> None:
        """Take what it imported out of `sys.modules`."""
        self._handler = None
        self._modules.forget()

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        """Have its environment, path, modules and working directory for that long."""
        before = {name: os.environ.get(name) for name in self._environment}
        where = Path.cwd()
        os.environ.update(self._environment)
        os.chdir(self._folder)
        try:
            with self._modules.inside():
                yield
        finally:
            os.chdir(where)
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


class _Modules:
    """The modules of one folder. Two functions may both have an `app`: each sees its own.

    What was imported from the folder before (by the test, to patch it) is used as it is.

    Args:
        folder: of the code.
        layers: folders to import from after it; what comes from there is kept, as what is installed is.
    """

    def __init__(self, folder: str, *, layers: Sequence[str] = ()) -> None:
        self._folder = folder
        self._paths = (folder, *layers)
        self._tops = {path.name.partition(".")[0] for path in Path(folder).iterdir()}
        self._own: dict[str, ModuleType] = {}

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Make the folder the first place to import from."""
        hidden = self._hide()
        sys.modules.update({name: module for name, module in self._own.items() if name not in sys.modules})
        before = set(sys.modules)
        sys.path[:0] = self._paths
        for path in self._paths:
            sys.path_importer_cache.pop(path, None)  # a file may have come since
        try:
            yield
        finally:
            for path in self._paths:
                with contextlib.suppress(ValueError):
                    sys.path.remove(path)
            self._own |= {name: sys.modules[name] for name in set(sys.modules) - before if self._is_ours(name)}
            if hidden:
                for name in self._own:
                    if name.partition(".")[0] in hidden:
                        sys.modules.pop(name, None)
                sys.modules.update(hidden)

    def _hide(self) -> dict[str, ModuleType]:
        """Take out modules of other folders that have the names of ours."""
        theirs = {top for top in self._tops if top in sys.modules and not self._is_ours(top)}
        if not theirs:
            return {}
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in theirs}

    def _is_ours(self, name: str) -> bool:
        module = sys.modules[name]
        places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
        return any(place and os.path.realpath(place).startswith(self._folder + os.sep) for place in places)

    def forget(self) -> None:
        """Take out what was imported inside."""
        for name, module in self._own.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
        self._own.clear()


def _layer_paths(version: FunctionVersion) -> list[str]:
    """Return where a function imports from beside its code: layers that are folders, the later one first; its packages.

    There is no /opt here, and layers of Lambda's API and zips are left out.
    """
    folders = [os.path.realpath(layer.written) for layer in reversed(version.layers) if layer.is_path]
    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    found = [f"{folder}/python/{name}" for name in (f"lib/{python}/site-packages", "") for folder in folders]
    if version.interpreter is not None and version.interpreter.virtualenv:
        found.append(f"{version.interpreter.virtualenv}/lib/{python}/site-packages")  # of another Python it has none
    return [path.rstrip("/") for path in found]

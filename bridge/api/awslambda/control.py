"""The functions that Lambda's API makes: kept durably, put beside the declared ones; their states (semantics 5.2)."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

import structlog

from bridge.api.awslambda.errors import Refused, invalid, not_found
from bridge.api.awslambda.made_layers import MadeLayers
from bridge.api.awslambda.sealing import Sealing
from bridge.core.errors import ConfigError, StoreCorrupt
from bridge.core.function import LATEST, Function, Interpreter, plain_name, space_name
from bridge.core.ports import Clock
from bridge.core.spaces import Space
from bridge.registry.attachments import Attachments
from bridge.registry.catalog import FunctionCatalog
from bridge.registry.interpreters import described, is_substituted
from bridge.registry.made import Builder, MadeFunction, MadeVersion, beside, named_packages, new_id
from bridge.registry.packages import UNZIPPED_MAX_BYTES
from bridge.registry.snapshots import declared_latest, zip_folder
from bridge.registry.zips import ZipRefused
from bridge.store.opt import opt_name
from bridge.store.packages import Package, PackageStore

log = structlog.get_logger("bridge.lambda")

SETTLE_S: Final = 0.05
"""How long a function is Pending, or its update InProgress: a client that polls sees either state at least once."""
COLLECT_S: Final = 60.0
PACKAGE_KEPT_S: Final = 1800.0
"""A package that nothing names stays this long: the longest invocation of it has ended by then."""
PENDING: Final = "Pending"
IN_PROGRESS: Final = "InProgress"


class FunctionStore(Protocol):
    """Keeps what was made."""

    async def load(self) -> tuple[dict[str, MadeFunction], dict[str, int]]:
        """Return all functions by key, and the last version number of every name there ever was."""
        ...

    async def erase(self) -> None:
        """Forget all, and what others keep in the same place, durably; raises StoreError."""
        ...

    async def save(self, key: str, *, before: MadeFunction | None, after: MadeFunction | None) -> None:
        """Write what differs under a function's key, durably; raises StoreError."""
        ...


class MadeFunctions:
    """Functions of all name spaces by name (`Space.key`); a change is durable before it counts, one comes at a time.

    Args:
        store: where they are kept.
        layers: what they may have besides their code.
        packages: their code, and that of layers.
        sealing: their variables.
        catalog: what runs.
        home: the file's name space.
        clock: the daemon's.
        changed: told the name of a function after the catalog has changed: workers retire, limits are counted anew.
        spawn: starts a task whose failure is seen.
        attached: what hangs on them, and goes with them.
        runtimes: what the file maps runtimes to.
    """

    def __init__(
        self,
        *,
        store: FunctionStore,
        layers: MadeLayers,
        packages: PackageStore,
        sealing: Sealing,
        catalog: FunctionCatalog,
        home: Space,
        clock: Clock,
        changed: Callable[[str], None],
        spawn: Callable[..., object],
        attached: Attachments,
        runtimes: Mapping[str, Interpreter] | None = None,
    ) -> None:
        self.home = home
        self.layers = layers
        self.packages = packages
        self.sealing = sealing
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._changed = changed
        self._spawn = spawn
        self._attached = attached
        self._functions: dict[str, MadeFunction] = {}
        """By key: functions that were made, and what was made for those of the file."""
        self._numbers: dict[str, int] = {}
        self._unsettled: dict[str, str] = {}
        """Pending or InProgress, by name; all others are Active."""
        self._lost: Collection[str] = frozenset()
        self._unnamed: dict[str, float] = {}
        """Packages that nothing names, and since when (monotonic seconds)."""
        self._told: set[str] = set()
        """Revisions whose substitute for a runtime is in the log."""
        self._lock = asyncio.Lock()
        self._builder = Builder(
            code_of=self.code_of,
            opt_of=self.opt_of,
            variables_of=sealing.open,
            home=home,
            runtimes=runtimes or {},
        )

    async def open(self) -> None:
        """Load everything, check the packages, and put the functions into the catalog.

        Raises:
            StoreError: what was kept cannot be read.
        """
        self._functions, self._numbers = await self._store.load()
        await self.layers.open()
        self._lost = await asyncio.to_thread(self.packages.open, self._named())
        await self.sealing.ask_at_start(self._functions.values())
        for made in self._functions.values():
            await self._put(made)
        for name in self._catalog.hidden():
            log.warning("function_hidden", function=name, reason="the file declares one of that name as well")
        for name in self._functions:
            if space_name(name) == self.home.name:
                log.warning("function_hidden", function=name, reason="the file had another account or region then")

    async def run(self) -> None:
        """Delete packages that nothing names any more, and ask KMS for keys that are due, for ever."""
        while True:
            await self._collect()
            await self._ask_kms()
            await self._clock.sleep(COLLECT_S)

    # --- looking ------------------------------------------------------------------------------------------------

    def get(self, name: str) -> MadeFunction | None:
        """Return a function that was made and that the file does not declare as well."""
        return None if self._catalog.is_declared(name) else self._functions.get(name)

    def kept(self, name: str) -> MadeFunction | None:
        """Return a function that was made, or what was made for one that the file declares; None: nothing was."""
        return self._functions.get(beside(name)) if self._catalog.is_declared(name) else self._functions.get(name)

    def declared(self, name: str) -> Function:
        """Return a function of the file as the file has it; raises KeyError."""
        found = self._catalog.declared(name)
        if found is None:
            raise KeyError(name)
        return found

    def names(self) -> tuple[str, ...]:
        """Return the names of all that were made, in order."""
        made = (each.name for each in self._functions.values() if not each.is_declared)
        return tuple(name for name in sorted(made) if not self._catalog.is_declared(name))

    def all_kept(self) -> tuple[MadeFunction, ...]:
        """Return all that is kept: functions that were made, and what was made for those of the file."""
        return tuple(self._functions.values())

    def state(self, name: str) -> str:
        """Return Pending, InProgress, or nothing: it is settled."""
        return self._unsettled.get(name, "")

    def variables(self, name: str, version: MadeVersion) -> Mapping[str, str]:
        """Return a version's variables; blocking once, when the key is read. Raises SealBroken."""
        return self.sealing.open(name, version)

    def last_number(self, name: str) -> int:
        """Return the version number that was given last to a function of that name; 0: none was."""
        return self._numbers.get(name, 0)

    def counts(self) -> dict[str, int]:
        """Return how many there are of what was made, by kind, with what hangs on functions."""
        functions = self._functions.values()
        return {
            "functions": sum(not made.is_declared for made in functions),
            "versions": sum(len(made.versions) for made in functions),
            "aliases": sum(len(made.aliases) for made in functions),
            "layer versions": self.layers.count(),
            **self._attached.counts(),
        }

    def total_size(self, space: Space) -> int:
        """Return the bytes of all versions' zips in a name space."""
        functions = [made for made in self._functions.values() if self.home.within(made.name) == space]
        return sum(version.code_size for made in functions for version in made.all_versions())

    # --- changing -----------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Let one caller at a time look and then change."""
        async with self._lock:
            yield

    def writable(self, name: str, *, qualifier: str = "") -> MadeFunction:
        """Return a function that may be changed.

        Raises:
            Refused: declared in the file, or not there.
        """
        if self._catalog.is_declared(name):
            raise declared(name)
        found = self._functions.get(name)
        if found is None:
            raise not_found(f"Function not found: {self.home.arn(name)}:{qualifier or LATEST}")
        return found

    def extensible(self, name: str, *, qualifier: str = "", of_code: bool = False) -> MadeFunction:
        """Return what may get what a file does not write: a function that was made, or what belongs to a declared one.

        Args:
            name: of the function.
            qualifier: for the error's text.
            of_code: its versions and aliases are meant, which a remote function has elsewhere.

        Raises:
            Refused: not there, or elsewhere.
        """
        function = self._catalog.declared(name)
        if function is None:
            return self.writable(name, qualifier=qualifier)
        if of_code and function.latest.remote is not None:
            raise invalid(f"{name} runs elsewhere ({function.latest.arn}): its versions and aliases are made there")
        found = self._functions.get(beside(name))
        latest = declared_latest(function.latest, account=self.home.account)
        if found is not None:
            return replace(found, latest=latest)
        return MadeFunction(name=name, is_declared=True, latest=latest, last_version=self.last_number(name))

    def removable(self, name: str) -> MadeFunction:
        """Return what a deletion of a whole function takes: of one that has left the file, what was made for it."""
        if not self._catalog.is_declared(name) and name not in self._functions and beside(name) in self._functions:
            return self._functions[beside(name)]
        return self.writable(name)

    def check_unwritten(self, name: str, setting: str) -> None:
        """Refuse to change what the file writes of a declared function: reserved_concurrency or event_invoke."""
        function = self._catalog.declared(name)
        if function is None:
            return
        reserved = setting == "reserved_concurrency" and function.reserved_concurrency is not None
        if reserved or (setting == "event_invoke" and function.writes_event_invoke):
            raise invalid(
                f"{name} is declared in the daemon's file, which writes its {setting}: it changes there alone (then "
                "`bridge reload`)"
            )

    async def snapshot(self, made: MadeFunction) -> MadeFunction:
        """Return what belongs to a declared function with its folder packed: `latest` can be published.

        Raises:
            Refused: the folder cannot be a package.
            StoreError: it cannot be kept.
        """
        function = self.declared(made.name).latest
        if function.unrunnable:
            raise invalid(f"{made.name} cannot be published: {function.unrunnable.partition(': ')[2]}")
        if function.interpreter is not None and function.interpreter.virtualenv:
            raise invalid(
                f"{made.name} cannot be published: its packages are in a virtual environment, which no version holds; "
                "put them into its code or a layer"
            )
        file = self.packages.temporary()
        try:
            await asyncio.to_thread(zip_folder, Path(function.code), file)
            package = await self.add_package(file)
        except ConfigError as error:
            raise invalid(f"{made.name} cannot be published: {error}") from error
        finally:
            await asyncio.to_thread(file.unlink, missing_ok=True)
        latest = replace(
            made.latest,
            package=package.key,
            code_size=package.size,
            environment=await self.sealing.close(made.name, LATEST, function.environment),
            modified_at=stamp(self._clock),
        )
        return replace(made, latest=latest)

    def check_new(self, name: str) -> None:
        """Refuse a name that is taken."""
        if self._catalog.is_declared(name):
            raise Refused(
                "ResourceConflictException",
                f"Function already exist: {name} (declared in the daemon's file)",
                status=409,
            )
        if name in self._functions:
            raise Refused("ResourceConflictException", f"Function already exist: {plain_name(name)}", status=409)

    def check_settled(self, name: str) -> None:
        """Refuse a change while an earlier one is not through."""
        state = self._unsettled.get(name)
        if state == PENDING:
            text = (
                "The operation cannot be performed at this time. The function is currently in the following state: "
                "Pending"
            )
            raise Refused("ResourceConflictException", text, status=409)
        if state == IN_PROGRESS:
            text = (
                "The operation cannot be performed at this time. An update is in progress for resource: "
                f"{self.home.arn(name)}"
            )
            raise Refused("ResourceConflictException", text, status=409)

    async def add_package(self, file: Path) -> Package:
        """Keep a zip; what had lost it runs again. Under `changing`. Raises Refused in AWS's words, StoreError."""
        try:
            package = await asyncio.to_thread(self.packages.add, file)
        except ZipRefused as error:
            log.info("package_refused", reason=error.reason or str(error))
            raise Refused("InvalidParameterValueException", str(error)) from error
        if package.key in self._lost:
            self._lost = [key for key in self._lost if key != package.key]
            for made in [each for each in self._functions.values() if package.key in each.packages()]:
                await self._take(made)
        return package

    async def check_unzipped(self, code: str, layers: Sequence[str]) -> None:
        """Refuse code and layers, by their packages' keys, that are more than 250 MB together."""
        if layers:  # else its own size was counted while it was read
            await self.check_layers(await asyncio.to_thread(self.packages.unzipped_size, code), layers)

    async def check_layers(self, code_bytes: int, layers: Sequence[str]) -> None:
        """Refuse layers, by their packages' keys, that are more than 250 MB, alone or with code of some size."""
        sizes = [code_bytes, *[await asyncio.to_thread(self.packages.unzipped_size, key) for key in layers]]
        if sum(sizes[1:]) > UNZIPPED_MAX_BYTES:
            raise invalid(f"Layers consume more than the available size of {UNZIPPED_MAX_BYTES} bytes")
        if sum(sizes) > UNZIPPED_MAX_BYTES:
            raise invalid(
                f"Function code combined with layers exceeds the maximum allowed size of {UNZIPPED_MAX_BYTES} bytes. "
                f"The actual size is {sum(sizes)} bytes."
            )

    async def save(self, made: MadeFunction, *, state: str = "", runs: bool = True) -> None:
        """Keep a function as it is now; under `changing`.

        Args:
            made: it.
            state: Pending or InProgress, for a moment; empty: it is settled at once.
            runs: it is what runs from now on; otherwise only once it has settled.
        """
        before = self._functions.get(made.key)
        if before is not None:  # what hangs on them first, as `delete` does
            for qualifier in sorted(before.qualifiers() - made.qualifiers()):
                await self._attached.forget(self.home.arn(made.name), qualifier)
        await self._store.save(made.key, before=before, after=made)
        self._functions[made.key] = made
        self._numbers[made.name] = max(made.last_version, self.last_number(made.name))
        if state:
            self._unsettled[made.name] = state
            self._spawn(self._settle(made.name, made.id), f"settle-{made.name}")
        if runs:
            await self._take(made)

    async def delete(self, made: MadeFunction) -> None:
        """Forget a function; what runs of it ends by itself. Under `changing`."""
        # First, so that a crash between the two leaves a function that allows nobody, never one that allows too many.
        await self._attached.forget(self.home.arn(made.name), None)
        await self._store.save(made.key, before=made, after=None)
        del self._functions[made.key]
        self._drop(made)

    def _drop(self, made: MadeFunction) -> None:
        if made.is_declared:
            self._catalog.put_additions(made.name, None)
        else:
            self._unsettled.pop(made.name, None)
            self._catalog.drop_made(made.name)
        self._changed(made.name)

    async def clear(self) -> None:
        """Forget all functions and layers, the numbers of their versions, and what hangs on them. Under `changing`."""
        await self._store.erase()
        gone, self._functions, self._numbers = self._functions, {}, {}
        self.layers.clear()
        for made in gone.values():
            self._drop(made)
        await self._attached.open()  # it has gone with the store's rows

    async def _settle(self, name: str, identity: str) -> None:
        await self._clock.sleep(SETTLE_S)
        async with self._lock:
            made = self._functions.get(name)
            if made is None or made.id != identity or name not in self._unsettled:
                return  # deleted meanwhile
            # With every change the revision is another one, this one included (semantics 5.3).
            settled = replace(made, latest=replace(made.latest, revision_id=new_id()))
            try:
                await self.save(settled)
            finally:
                self._unsettled.pop(name, None)

    async def _take(self, made: MadeFunction) -> None:
        await self._put(made)
        self._changed(made.name)

    async def _put(self, made: MadeFunction) -> None:
        if made.is_declared:
            self._catalog.put_additions(made.name, await asyncio.to_thread(self._builder.additions, made))
            return
        function = await asyncio.to_thread(self._builder.build, made)
        for version in (function.latest, *function.versions.values()):
            if is_substituted(version) and version.revision not in self._told:
                self._told.add(version.revision)
                log.info(
                    "runtime_substituted", function=version.name, version=version.version,
                    runtime=described(version.runtime, version.interpreter),
                )  # fmt: skip
        self._catalog.put_made(function)

    # --- parts --------------------------------------------------------------------------------------------------

    def code_of(self, key: str) -> str:
        """Return the folder of a package; blocking. Raises StoreCorrupt: it is lost."""
        if key in self._lost:
            raise StoreCorrupt(f"the package {key} is lost or damaged")
        return str(self.packages.get(key).code)

    def opt_of(self, keys: Sequence[str]) -> str:
        """Return the folder that packages of layers are merged into, in order; blocking. Raises StoreError."""
        for key in keys:
            self.code_of(key)  # none is lost
        return str(self.packages.opt(keys))

    def _named(self) -> frozenset[str]:
        """Return all that must stay among the packages."""
        functions = self._functions.values()
        files = (function.latest.layers for function in self._catalog.functions())
        declared = [[layer.package for layer in layers if layer.package] for layers in files]
        layered = [each.layers for made in functions for each in made.all_versions()] + declared
        merged = (opt_name(keys) for keys in layered if len(keys) > 1)
        return named_packages(functions) | self.layers.packages() | frozenset(merged).union(*declared)

    async def _ask_kms(self) -> None:
        for key in await self.sealing.ask(self.all_kept()):
            async with self._lock:
                if (made := self._functions.get(key)) is not None and self.state(made.name) != IN_PROGRESS:
                    await self._take(made)

    async def _collect(self) -> None:
        async with self._lock:
            now = self._clock.monotonic()
            unnamed = await asyncio.to_thread(self.packages.keys) - self._named()
            self._unnamed = {key: self._unnamed.get(key, now) for key in unnamed}
            for key, since in list(self._unnamed.items()):
                if now - since >= PACKAGE_KEPT_S:
                    await asyncio.to_thread(self.packages.remove, key)
                    log.info("package_deleted", package=key)


def declared(name: str) -> Refused:
    """Return the refusal to change what the file declares."""
    return Refused(
        "InvalidParameterValueException",
        f"{name} is declared in the daemon's file, which alone changes it (then `bridge reload`): "
        "Lambda's API reads and invokes it, and makes what the file does not write",
    )


def stamp(clock: Clock) -> str:
    """Return now as AWS writes it: ISO 8601 with milliseconds."""
    now = dt.datetime.fromtimestamp(clock.time(), dt.UTC)
    return f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}+0000"

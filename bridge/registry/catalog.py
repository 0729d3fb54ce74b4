"""The functions there are, by name: looked up on every invocation, replaced as one on reload."""

import hashlib
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Final

import orjson

from bridge.core import limits
from bridge.core.errors import FunctionNotFound
from bridge.core.function import (
    ACCOUNT_DEFAULT,
    LATEST,
    REGION_DEFAULT,
    Additions,
    DeclaredLayer,
    EventInvokeConfig,
    Function,
    FunctionVersion,
    Interpreter,
    RemoteFunction,
    function_arn,
    plain_name,
    space_name,
)
from bridge.core.logging_config import DEFAULT, LoggingConfig
from bridge.core.network import AUTO, VpcConfig
from bridge.core.spaces import Space
from bridge.registry.packages import digest_folder
from bridge.registry.virtualenvs import changed_ns

# A revision covers secrets. Keyed anew in every process, it cannot be used to guess them, should it be shown.
_REVISION_KEY: Final = os.urandom(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSpec:
    """A function as it was asked for, before its code was looked at. Ranges as in `FunctionVersion`."""

    name: str
    code: Path | None = None
    """None of a remote function."""
    handler: str = ""
    runtime: str = ""
    interpreter: Interpreter | None = None
    layers: Sequence[str] = ()
    """See `DeclaredLayer.written`."""
    timeout_s: int = limits.TIMEOUT_DEFAULT_S
    memory_mb: int = limits.MEMORY_DEFAULT_MB
    ephemeral_storage_mb: int = limits.EPHEMERAL_STORAGE_DEFAULT_MB
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Secrets resolved."""
    reserved_concurrency: int | None = None
    event_invoke: EventInvokeConfig = field(default_factory=EventInvokeConfig)
    writes_event_invoke: bool = False
    dead_letter_target: str = ""
    connection: str = ""
    """Of the ARNs that it names."""
    role: str = ""
    """ARN of its execution role; empty: it has none."""
    remote: RemoteFunction | None = None
    logging: LoggingConfig = DEFAULT
    vpc: VpcConfig | None = None
    network: str = AUTO


def build_function(spec: FunctionSpec, *, region: str = REGION_DEFAULT, account: str = ACCOUNT_DEFAULT) -> Function:
    """Return the function of a spec; reads its folder (blocking).

    Raises:
        ConfigError: the folder is missing, unreadable or too large.
    """
    latest = FunctionVersion(
        name=spec.name,
        arn=function_arn(spec.name, region=region, account=account) if spec.remote is None else str(spec.remote.arn),
        code="" if spec.code is None else os.path.abspath(spec.code),  # noqa: PTH100 - a link stays one, see _revision
        revision="",
        handler=spec.handler,
        layers=tuple(DeclaredLayer(written=each) for each in spec.layers),
        timeout_s=spec.timeout_s,
        memory_mb=spec.memory_mb,
        ephemeral_storage_mb=spec.ephemeral_storage_mb,
        environment=dict(spec.environment),
        region=region,
        dead_letter_target=spec.dead_letter_target,
        role=spec.role,
        remote=spec.remote,
        logging=spec.logging,
        vpc=spec.vpc,
        network=spec.network,
        runtime=spec.runtime,
        interpreter=spec.interpreter,
    )
    return Function(
        name=spec.name,
        latest=replace(latest, revision=_revision(latest)),
        reserved_concurrency=spec.reserved_concurrency,
        event_invoke=spec.event_invoke,
        writes_event_invoke=spec.writes_event_invoke,
        connection=spec.connection,
    )


def _revision(version: FunctionVersion) -> str:
    """Return the digest of all that makes a running worker stale when it changes."""
    if version.remote is not None:
        return _digest([version.timeout_s, astuple(version.remote)])
    facts = [
        # Where a link leads is part of it: turned to another release with the same files, it is another revision.
        version.arn, version.code, os.path.realpath(version.code), digest_folder(version.code), version.handler,
        version.timeout_s, version.memory_mb, version.ephemeral_storage_mb, sorted(version.environment.items()),
        astuple(version.logging), version.role, version.runtime, version.interpreter, version.opt,
        changed_ns(version.interpreter),
        version.vpc, version.network,
    ]  # fmt: skip
    return _digest(facts)


def _digest(facts: Sequence[object]) -> str:
    text = orjson.dumps([repr(fact) for fact in facts])
    return hashlib.blake2b(text, key=_REVISION_KEY, digest_size=16).hexdigest()


class FunctionCatalog:
    """Functions by name. Lookups see either all of a replacement or none of it."""

    def __init__(
        self, functions: Iterable[Function] = (), *, region: str = REGION_DEFAULT, account: str = ACCOUNT_DEFAULT
    ) -> None:
        self._declared: Mapping[str, Function] = {function.name: function for function in functions}
        self._made: Mapping[str, Function] = {}
        """By Lambda's API; where the file declares the same name, that one counts."""
        self._added: Mapping[str, Additions] = {}
        """By Lambda's API, for functions that the file declares, or did once."""
        self._functions: Mapping[str, Function] = self._all()
        self._region = region
        self._account = account
        self._swap = threading.Lock()

    @classmethod
    def from_specs(
        cls, specs: Iterable[FunctionSpec], *, region: str = REGION_DEFAULT, account: str = ACCOUNT_DEFAULT
    ) -> "FunctionCatalog":
        """Build a catalog; reads every folder (blocking).

        Raises:
            ConfigError: a folder is missing, unreadable or too large.
        """
        built = [build_function(spec, region=region, account=account) for spec in specs]
        return cls(built, region=region, account=account)

    def get(self, name: str) -> Function:
        """Return the function.

        Raises:
            FunctionNotFound: with AWS's text, which names `$LATEST` (semantics 1.6).
        """
        found = self._functions.get(name)
        if found is None and space_name(name) == Space(self._account, self._region).name:
            found = self._functions.get(plain_name(name))  # the file's own name space, written out
        if found is None:
            arn = function_arn(name, region=self._region, account=self._account)
            raise FunctionNotFound(f"Function not found: {arn}:{LATEST}")
        return found

    def functions(self) -> tuple[Function, ...]:
        """Return all functions, by name."""
        return tuple(self._functions.values())

    def reserved(self) -> dict[str, int]:
        """Return the concurrency that functions keep for themselves, taken from the account's, by `space_name`."""
        found: dict[str, int] = {}
        for function in self._functions.values():
            if function.reserved_concurrency:
                space = space_name(function.name)
                found[space] = found.get(space, 0) + function.reserved_concurrency
        return found

    def provisioned(self) -> dict[tuple[str, str], int]:
        """Return the provisioned concurrency of what has none reserved, by function and version."""
        return {
            (function.name, version): count
            for function in self._functions.values()
            if function.provisioned and function.reserved_concurrency is None
            for version, count in function.warm().items()
        }

    def __contains__(self, name: object) -> bool:
        return name in self._functions

    def __len__(self) -> int:
        return len(self._functions)

    def replace_all(self, new: "FunctionCatalog") -> frozenset[str]:
        """Take over what `new` declares, beside what was made; return the names that came, went or changed.

        What runs ends under the values it began with: they are frozen, and only looked up anew.
        """
        with self._swap:
            before = self._functions
            self._declared = new._declared  # noqa: SLF001 - of our own class
            self._region, self._account = new._region, new._account  # noqa: SLF001
            self._functions = after = self._all()
        return frozenset(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))

    def refresh(self, name: str) -> bool:
        """Look at a function's code again (blocking; may run in a thread); True if its revision changed.

        Raises:
            FunctionNotFound: no such function.
            ConfigError: its folder is missing, unreadable or too large; the function stays as it was.
        """
        function = self._declared.get(name)
        if function is None:
            function = self.get(name)
        revision = _revision(function.latest)
        if revision == function.latest.revision:
            return False
        latest = replace(function.latest, revision=revision)
        with self._swap:
            if self._declared.get(name) is not function:
                return False  # a reload was faster, and it has looked at the code as well
            self._declared = {**self._declared, name: replace(function, latest=latest)}
            self._functions = self._all()
        return True

    def put_layers(self, name: str, *, layers: Sequence[DeclaredLayer], opt: str, trouble: str) -> bool:
        """Take what the layers of a declared function have come to (blocking); True if that changed something.

        Args:
            name: of the function; one that is gone is fine.
            layers: with their packages, or without, where there is trouble.
            opt: the folder that they are merged into; empty: there is trouble.
            trouble: see `FunctionVersion.unrunnable`.

        Raises:
            ConfigError: its folder is missing, unreadable or too large; the function stays as it was.
        """
        function = self._declared.get(name)
        if function is None:
            return False
        latest = replace(function.latest, layers=tuple(layers), opt=opt, unrunnable=trouble)
        latest = replace(latest, revision=_revision(latest))
        with self._swap:
            if latest == function.latest or self._declared.get(name) is not function:
                return False  # a reload was faster, and it has looked at the layers as well
            self._declared = {**self._declared, name: replace(function, latest=latest)}
            self._functions = self._all()
        return True

    def _all(self) -> Mapping[str, Function]:
        """Return what counts, by name and in the order of names."""
        found: dict[str, Function] = {**self._made, **self._declared}
        for name in self._added.keys() & self._declared.keys():
            found[name] = found[name].with_additions(self._added[name])
        return dict(sorted(found.items()))

    # --- made by Lambda's API -----------------------------------------------------------------------------------

    def put_made(self, function: Function) -> None:
        """Take a function beside the declared ones, in the place of an earlier one that was made."""
        with self._swap:
            self._made = {**self._made, function.name: function}
            self._functions = self._all()

    def drop_made(self, name: str) -> None:
        """Forget one that was made; another one is fine."""
        with self._swap:
            self._made = {other: function for other, function in self._made.items() if other != name}
            self._functions = self._all()

    def put_additions(self, name: str, added: Additions | None) -> None:
        """Take what was made for a declared function, in the place of what was before; None: nothing is left."""
        with self._swap:
            self._added = {other: each for other, each in self._added.items() if other != name}
            if added is not None:
                self._added = {**self._added, name: added}
            self._functions = self._all()

    def is_declared(self, name: str) -> bool:
        """Tell whether the file has it: then Lambda's API changes nothing that the file writes."""
        return name in self._declared

    def declared(self, name: str) -> Function | None:
        """Return a function as the file alone has it."""
        return self._declared.get(name)

    def hidden(self) -> tuple[str, ...]:
        """Return the names that were made and that the file declares as well."""
        return tuple(sorted(self._made.keys() & self._declared.keys()))

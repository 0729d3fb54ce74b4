"""Functions that Lambda's API made: what is kept of them, and the function that runs."""

import hashlib
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from bridge.core import limits
from bridge.core.errors import BridgeError, SealBroken
from bridge.core.function import (
    LATEST,
    Additions,
    Alias,
    EventInvokeConfig,
    Function,
    FunctionVersion,
    Interpreter,
    plain_name,
)
from bridge.core.logging_config import LoggingConfig
from bridge.core.network import AUTO, VpcConfig
from bridge.core.outcome import LOCAL
from bridge.core.spaces import Space
from bridge.registry.interpreters import INTERPRETER, found, trouble
from bridge.registry.packages import code_sha256
from bridge.registry.roles import is_made_up
from bridge.registry.secrets import unwrapped_part
from bridge.registry.stored import restored

DECLARED: Final = "@declared"
"""Behind a name that is kept for a function of the file."""
NOT_COMPARED: Final = frozenset({"Description"})
"""Settings that alone make no new version."""
_AGAIN: Final = "give the code again (UpdateFunctionCode, or `bridge functions deploy`)"
_ANEW: Final = "publish it anew and give it to the function (UpdateFunctionConfiguration)"


def new_id() -> str:
    """Return a RevisionId."""
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeVersion:
    """Code and configuration of `$LATEST` or a published version."""

    version: str = LATEST
    settings: Mapping[str, Any]
    """What FunctionConfiguration shows of it, by AWS's names: Runtime, Handler, Timeout…"""
    package: str
    """Key in the package store: SHA-256 of the zip, hexadecimal."""
    code_size: int
    """Bytes of the zip."""
    layers: Sequence[str] = ()
    """Keys of its layers' packages, in order: they are kept when the layer versions are deleted."""
    environment: str = field(default="", repr=False)
    """The variables as JSON, sealed; empty: none."""
    modified_at: str
    """ISO 8601 with milliseconds, as AWS writes it."""
    revision_id: str = field(default_factory=new_id)
    network: str = AUTO
    """Of a version of a function of the file, what that one's `network` says."""

    @property
    def code_sha256(self) -> str:
        """CodeSha256."""
        return code_sha256(self.package)

    def compared(self) -> tuple[object, ...]:
        """Return what makes a new version when it changes, but for the variables, which are sealed."""
        settings = {name: value for name, value in self.settings.items() if name not in NOT_COMPARED}
        return settings, self.package, tuple(self.layers), self.network


NOT_KEPT: Final = MadeVersion(settings={}, package="", code_size=0, modified_at="", revision_id="")
"""`$LATEST` of what is kept for a function of the file: the file has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeAlias:
    """An alias as it was asked for."""

    name: str
    version: str
    description: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of at most one additional version."""
    revision_id: str = field(default_factory=new_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeFunction:
    """A function, its versions and aliases, and what all of them share."""

    name: str
    """With its name space, see `Space.key`."""
    id: str = field(default_factory=new_id)
    """Of this creation: one that was deleted and made again is another, whose workers are its own."""
    latest: MadeVersion
    versions: Mapping[str, MadeVersion] = field(default_factory=dict)
    """By number, in order."""
    last_version: int = 0
    """The number given last, to it or to an earlier function of its name."""
    aliases: Mapping[str, MadeAlias] = field(default_factory=dict)
    reserved: int | None = None
    event_invokes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """FunctionEventInvokeConfig by qualifier, as set: what was left out is not there."""
    tags: Mapping[str, str] = field(default_factory=dict)
    provisioned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Provisioned concurrency by qualifier: `requested`, and when it was, `modified_at`."""
    is_declared: bool = False
    """The function is the file's: this is what was made for it, and `latest` is not kept."""

    @property
    def key(self) -> str:
        """What it is kept under: a function of the API and what belongs to one of the file may share a name."""
        return beside(self.name) if self.is_declared else self.name

    def find(self, qualifier: str) -> MadeVersion | None:
        """Return the version that a qualifier names; of a weighted alias the first one."""
        if qualifier in ("", LATEST):
            return self.latest
        if (alias := self.aliases.get(qualifier)) is not None:
            return self.find(alias.version)
        return self.versions.get(qualifier)

    def has(self, qualifier: str) -> bool:
        """Tell whether there is such a version or alias."""
        return self.find(qualifier) is not None

    def qualifiers(self) -> frozenset[str]:
        """Return the names of all versions and aliases but `$LATEST`."""
        return frozenset({*self.versions, *self.aliases})

    def warmths(self) -> dict[str, int]:
        """Return the provisioned concurrency that was asked for, by qualifier."""
        return {qualifier: config["requested"] for qualifier, config in self.provisioned.items()}

    def without(self, qualifier: str) -> "MadeFunction":
        """Return it without what was set for a version or alias that goes."""
        return replace(
            self,
            event_invokes={key: each for key, each in self.event_invokes.items() if key != qualifier},
            provisioned={key: each for key, each in self.provisioned.items() if key != qualifier},
        )

    def packages(self) -> frozenset[str]:
        """Return the keys of all packages that it names, those of its layers included."""
        return frozenset(key for version in self.all_versions() for key in (version.package, *version.layers) if key)

    def all_versions(self) -> tuple[MadeVersion, ...]:
        """Return `$LATEST` and the published ones, in order."""
        return self.latest, *self.versions.values()


# --- as rows --------------------------------------------------------------------------------------------------------
Row = tuple[str, str]
"""Kind and key of a part of a function."""


def parts(made: MadeFunction) -> dict[Row, object]:
    """Return the parts that are stored in a row each; an unchanged part is the same object."""
    found: dict[Row, object] = {("function", ""): (made.id, made.reserved, dict(made.tags))}
    if not made.is_declared:
        found["version", LATEST] = made.latest
    found |= {("version", number): version for number, version in made.versions.items()}
    found |= {("alias", name): alias for name, alias in made.aliases.items()}
    found |= {("event-invoke", qualifier): config for qualifier, config in made.event_invokes.items()}
    found |= {("provisioned", qualifier): config for qualifier, config in made.provisioned.items()}
    return found


def pack(part: object) -> bytes:
    """Return a part as JSON."""
    if isinstance(part, tuple):
        part = {"id": part[0], "reserved": part[1], "tags": part[2]}
    return orjson.dumps(part, option=orjson.OPT_SORT_KEYS)


def beside(name: str) -> str:
    """Return the key of what is kept for a function of the file."""
    return name + DECLARED


def name_of(key: str) -> str:
    """Return the name of what is kept under a key."""
    return key.removesuffix(DECLARED)


def unpack(key: str, rows: Mapping[Row, bytes], *, last_version: int) -> MadeFunction:
    """Return the function of parts that are kept under a key.

    Raises:
        ValueError, KeyError, TypeError, StoreCorrupt: they are not what `pack` made.
        StoreTooNew: a newer version made them.
    """
    found = {row: orjson.loads(data) for row, data in rows.items()}
    base, name = found["function", ""], name_of(key)
    versions = {
        key: restored(MadeVersion, value, what=f"version {key} of the function {name}")
        for (kind, key), value in found.items()
        if kind == "version"
    }
    is_declared = key.endswith(DECLARED)
    latest = NOT_KEPT if is_declared else versions.pop(LATEST)
    return MadeFunction(
        name=name,
        is_declared=is_declared,
        id=base["id"],
        latest=latest,
        versions=dict(sorted(versions.items(), key=lambda item: int(item[0]))),
        last_version=last_version,
        aliases={
            key: restored(MadeAlias, value, what=f"the alias {key} of the function {name}")
            for (kind, key), value in found.items()
            if kind == "alias"
        },
        reserved=base["reserved"],
        event_invokes={key: value for (kind, key), value in found.items() if kind == "event-invoke"},
        provisioned={key: value for (kind, key), value in found.items() if kind == "provisioned"},
        tags=base["tags"],
    )


# --- as what runs ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """What turns a made function into one that runs."""

    code_of: Callable[[str], str]
    """Folder of a package; raises BridgeError when it is lost."""
    opt_of: Callable[[Sequence[str]], str]
    """Folder of the packages of layers, merged in order; raises BridgeError when one is lost."""
    variables_of: Callable[[str, MadeVersion], Mapping[str, str]]
    """Opens a version's variables, given the function's name; raises SealBroken."""
    home: Space
    """The file's name space."""
    runtimes: Mapping[str, Interpreter] = field(default_factory=dict)
    """What the file maps runtimes to."""

    def build(self, made: MadeFunction) -> Function:
        """Return the function; a version that cannot run says why when it is invoked."""
        return Function(
            name=made.name,
            latest=self._version(made, made.latest),
            reserved_concurrency=made.reserved,
            event_invoke=event_invoke(made.event_invokes.get(LATEST, {})),
            event_invokes={name: event_invoke(config) for name, config in made.event_invokes.items()},
            versions={number: self._version(made, version) for number, version in made.versions.items()},
            aliases={name: _alias(alias) for name, alias in made.aliases.items()},
            provisioned=made.warmths(),
            is_made=True,
        )

    def additions(self, made: MadeFunction) -> Additions:
        """Return what was made for a function of the file."""
        return Additions(
            versions={number: self._version(made, version) for number, version in made.versions.items()},
            aliases={name: _alias(alias) for name, alias in made.aliases.items()},
            event_invokes={name: event_invoke(config) for name, config in made.event_invokes.items()},
            reserved_concurrency=made.reserved,
            provisioned=made.warmths(),
        )

    def _version(self, made: MadeFunction, version: MadeVersion) -> FunctionVersion:
        settings, code, variables = version.settings, "", {}
        opt = ""
        runtime = settings["Runtime"]
        # The file's function names none where it runs on the daemon's Python, whatever that one is mapped to.
        interpreter = None if made.is_declared and runtime == INTERPRETER else found(runtime, self.runtimes)
        unrunnable = trouble(runtime, interpreter)
        try:
            variables = dict(self.variables_of(made.name, version))
        except SealBroken as error:
            unrunnable = f"{error.code}: {error}"
        try:
            opt = self.opt_of(version.layers) if version.layers else ""
        except BridgeError as error:
            layers = ", ".join(layer["Arn"] for layer in settings.get("Layers", ()))
            unrunnable = f"InvalidZipFileException: a layer of {layers}: {error}; {_remedy(version, _ANEW)}"
        try:
            code = self.code_of(version.package)
        except BridgeError as error:
            unrunnable = f"InvalidZipFileException: {error}; {_remedy(version, _AGAIN)}"
        facts = (
            made.id, version.version, version.package, settings, unwrapped_part(version.environment), interpreter,
            version.network,
        )  # fmt: skip
        return FunctionVersion(
            name=made.name,
            version=version.version,
            arn=self.home.arn(made.name),
            code=code,
            opt=opt,
            revision=hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32],
            handler=settings["Handler"],
            timeout_s=settings["Timeout"],
            memory_mb=settings["MemorySize"],
            ephemeral_storage_mb=settings["EphemeralStorage"]["Size"],
            environment=variables,
            region=self.home.within(made.name).region,
            dead_letter_target=settings.get("DeadLetterConfig", {}).get("TargetArn", ""),
            role="" if made.is_declared and is_made_up(settings["Role"]) else settings["Role"],
            runtime=runtime,
            interpreter=interpreter,
            unrunnable=unrunnable,
            logging=LoggingConfig.of(settings.get("LoggingConfig", {}), function=plain_name(made.name)),
            vpc=VpcConfig.of(settings.get("VpcConfig", {})),
            network=version.network,
        )


def _remedy(version: MadeVersion, latest: str) -> str:
    if version.version == LATEST:
        return latest
    return "give the function or a layer the very same zip again (its hash is its name), or delete the version"


def event_invoke(config: Mapping[str, Any]) -> EventInvokeConfig:
    """Return how events are retried, by what was set of FunctionEventInvokeConfig."""
    destinations = config.get("DestinationConfig", {})
    return EventInvokeConfig(
        maximum_retry_attempts=config.get("MaximumRetryAttempts", limits.ASYNC_RETRY_ATTEMPTS_DEFAULT),
        maximum_event_age_s=config.get("MaximumEventAgeInSeconds", limits.EVENT_AGE_DEFAULT_S),
        on_success=destinations.get("OnSuccess", {}).get("Destination", ""),
        on_failure=destinations.get("OnFailure", {}).get("Destination", "") or LOCAL,
    )


def _alias(alias: MadeAlias) -> Alias:
    for version, weight in alias.weights.items():
        return Alias(name=alias.name, version=alias.version, additional=version, weight=weight)
    return Alias(name=alias.name, version=alias.version)


def published(made: MadeFunction, *, description: str | None, environment: str) -> MadeFunction:
    """Return the function with `$LATEST` frozen under the next number; `environment` is sealed for that one."""
    number = str(made.last_version + 1)
    settings = dict(made.latest.settings)
    if description is not None:
        settings["Description"] = description
    version = replace(made.latest, version=number, settings=settings, environment=environment, revision_id=new_id())
    return replace(
        made,
        versions={**made.versions, number: version},
        last_version=made.last_version + 1,
        latest=replace(made.latest, revision_id=new_id()),
    )


def last_published(made: MadeFunction) -> MadeVersion | None:
    """Return the latest version that is still there; None: there is none."""
    return next(iter(reversed(list(made.versions.values()))), None)


def named_packages(functions: Iterable[MadeFunction]) -> frozenset[str]:
    """Return the keys of all packages that functions name."""
    return frozenset(key for made in functions for key in made.packages())

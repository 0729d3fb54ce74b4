"""Functions as frozen values: what runs, under which limits, and how asynchronous failures are handled."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from bridge.core import limits
from bridge.core.arn import Arn
from bridge.core.connection import AwsConnection
from bridge.core.errors import FunctionNotFound
from bridge.core.logging_config import DEFAULT, GROUP_PREFIX, LoggingConfig
from bridge.core.network import AUTO, VpcConfig

REGION_DEFAULT: Final = "us-east-1"
ACCOUNT_DEFAULT: Final = "000000000000"
LATEST: Final = "$LATEST"
SPACE_MARK: Final = "@"
"""Between a function's name and its name space, where that is not the file's: `NAME@REGION.ACCOUNT`. No name has it."""
NAME_PATTERN: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
QUALIFIER_PATTERN: Final = re.compile(r"(?:\$LATEST|[a-zA-Z0-9_-]{1,128})\Z")
TARGET_MAX_CHARS: Final = 240
"""Characters of the longest text that TARGET_PATTERN matches, no fewer."""
TARGET_PATTERN: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}(?:@[a-z0-9-]{1,32}\.[0-9]{12})?(?::[a-zA-Z0-9$_-]{1,128})?\Z")
"""`name[:qualifier]`, where the name may have its name space behind it."""
ENVIRONMENT_NAME_PATTERN: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9_]+\Z")
RESERVED_ENVIRONMENT: Final = frozenset({
    "_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
    "AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR", "AWS_LAMBDA_MAX_CONCURRENCY",
})  # fmt: skip
"""Names a function may not set (configuration-envvars.html)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventInvokeConfig:
    """How an asynchronous event is retried and where it goes (semantics 2.2)."""

    maximum_retry_attempts: int = limits.ASYNC_RETRY_ATTEMPTS_DEFAULT
    """0..2"""
    maximum_event_age_s: int = limits.EVENT_AGE_DEFAULT_S
    """60..21600 seconds"""
    retry_delays_s: tuple[float, ...] = limits.ASYNC_RETRY_DELAYS_DEFAULT_S
    """Seconds before the first, second… retry; the last one is used for any further retry."""
    on_failure: str = "spill"
    """`spill` (the local dead letters), an ARN, or `kafka://CONNECTION/topic`."""
    on_success: str = ""
    """Likewise, but never `spill`; empty: nobody is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFunction:
    """A function that runs elsewhere, behind Lambda's API."""

    arn: Arn
    """As written: `…:function:NAME`, or with a qualifier behind it."""
    connection: AwsConnection
    handover: bool = False
    """Events are handed to the remote's own asynchronous queue, which retries them; nobody here hears how they end."""

    @property
    def name(self) -> str:
        """The function's name there."""
        return self.arn.resource.split(":")[1]

    @property
    def qualifier(self) -> str:
        """Version or alias; empty: `$LATEST`."""
        return [*self.arn.resource.split(":"), ""][2]

    @property
    def unqualified_arn(self) -> str:
        """The ARN without version or alias."""
        return str(replace(self.arn, resource=f"function:{self.name}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """What runs functions of a runtime: a Python that the file maps it to, a Node.js, a Ruby, or any command."""

    program: str
    """Absolute path; empty: the Python that this process runs on."""
    version: str
    """`3.12`, or `20.11.1` of a Node.js or a Ruby; empty of a command."""
    prefix: str
    """Absolute path of the folder that holds it and its library; empty as `program`."""
    language: str = "python"
    """`python`, `node`, `ruby` or `command`."""
    command: tuple[str, ...] = ()
    """Of a command: the program and its arguments, where {handler}, {task_root} and {opt} stand for the function's."""
    virtualenv: str = ""
    """Absolute path of the virtual environment whose Python it is; empty: of none."""
    needs: tuple[str, ...] = ()
    """Folders without which that Python does not run, its own among them; of no virtual environment: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredLayer:
    """A layer that the file gives a function."""

    written: str
    """ARN of a layer version, or the absolute path of a folder or a zip."""
    package: str = ""
    """Key of its package; empty: it was not looked for, or not all layers of the function were found."""
    size: int = 0
    """Bytes of its zip."""

    @property
    def is_path(self) -> bool:
        """Tell whether it is of this machine, not of Lambda's API."""
        return not self.written.startswith("arn:")


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionVersion:
    """Code and configuration that run together; a change makes a new value with another `revision`."""

    name: str
    version: str = LATEST
    arn: str
    """Function ARN: unqualified, of a remote function as written."""
    code: str
    """Absolute path of the folder that becomes the task root; empty of a remote function."""
    revision: str
    """Digest of code and configuration: workers of another revision are never used for this one."""
    handler: str
    """Empty of a remote function."""
    timeout_s: int = limits.TIMEOUT_DEFAULT_S
    memory_mb: int = limits.MEMORY_DEFAULT_MB
    ephemeral_storage_mb: int = limits.EPHEMERAL_STORAGE_DEFAULT_MB
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The customer's variables, secrets resolved: never in a repr, a log or the state folder."""
    region: str = REGION_DEFAULT
    dead_letter_target: str = ""
    """ARN of the SQS queue or SNS topic that gets asynchronous events that failed; empty: none."""
    role: str = ""
    """ARN of its execution role; empty: it has none, and nothing is asked of it."""
    remote: RemoteFunction | None = None
    """Where it runs, when not in a worker of ours."""
    runtime: str = ""
    """AWS's name of what it was made for; empty: what runs it here."""
    opt: str = ""
    """Absolute path of the folder that becomes /opt: its layers, merged; empty: it has none."""
    layers: tuple[DeclaredLayer, ...] = ()
    """What the file merges into it, in order."""
    interpreter: Interpreter | None = None
    """What the file maps its runtime to; None: nothing, so that it runs on this process's Python."""
    unrunnable: str = ""
    """AWS's code, `: `, and why no worker can run it (no interpreter, no package, no key); empty: they can."""
    logging: LoggingConfig = DEFAULT
    """How its workers' log is written."""
    vpc: VpcConfig | None = None
    """Its subnets and security groups; None: it has none."""
    network: str = AUTO
    """Which network its workers have: `auto`, `vpc` or `none`, see `core.network`."""

    @property
    def space(self) -> str:
        """Region and account of its ARN, as text."""
        return ".".join(self.arn.split(":")[3:5])

    @property
    def log_group(self) -> str:
        """Name of the log group."""
        return self.logging.group or GROUP_PREFIX + self.plain_name

    @property
    def plain_name(self) -> str:
        """What its own code and callers know it by."""
        return plain_name(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A name for a version, and for a share of its invocations another one (semantics 5.4)."""

    name: str
    version: str
    additional: str = ""
    """A second version; empty: none."""
    weight: float = 0.0
    """0..1, the share of invocations that the second version gets."""

    def pick(self, chance: float) -> str:
        """Return the version for a number that was drawn evenly from 0..1."""
        return self.additional if self.additional and chance < self.weight else self.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function under its name: what `$LATEST` is, and the limits all its versions share."""

    name: str
    latest: FunctionVersion
    reserved_concurrency: int | None = None
    """None: draws on the account's pool; 0: stopped."""
    event_invoke: EventInvokeConfig = field(default_factory=EventInvokeConfig)
    connection: str = ""
    """Name of the `[connections.X]` that its ARNs are reached by; empty: found by an ARN's region."""
    versions: Mapping[str, FunctionVersion] = field(default_factory=dict)
    """Published ones, by number."""
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    is_made: bool = False
    """Made by Lambda's API, not declared in the file."""
    event_invokes: Mapping[str, EventInvokeConfig] = field(default_factory=dict)
    """Of versions and aliases that have one of their own, by qualifier; the others have AWS's defaults, of a declared
    function what the file says."""
    provisioned: Mapping[str, int] = field(default_factory=dict)
    """Provisioned concurrency of versions and aliases, by qualifier."""
    writes_event_invoke: bool = False
    """The file writes `event_invoke`: Lambda's API sets none for `$LATEST`."""

    @property
    def revisions(self) -> frozenset[str]:
        """Those of all its versions: workers of others have nothing left to do."""
        return frozenset(version.revision for version in (self.latest, *self.versions.values()))

    def warm(self, *qualifiers: str) -> dict[str, int]:
        """Return how many environments are kept initialised, by version: of a weighted alias by its weights.

        Args:
            *qualifiers: only what these ask for; none: all.
        """
        found: dict[str, int] = {}
        for qualifier, count in self.provisioned.items():
            if qualifiers and qualifier not in qualifiers:
                continue
            alias = self.aliases.get(qualifier, Alias(name=qualifier, version=qualifier))
            second = round(count * alias.weight) if alias.additional else 0
            for version, share in ((alias.version, count - second), (alias.additional, second)):
                if share and version in self.versions:
                    found[version] = found.get(version, 0) + share
        return found

    def qualified(self, qualifier: str) -> "Function":
        """Return the function as it handles what was sent to a version or an alias: by that one's own configuration."""
        if qualifier in ("", LATEST):
            return self
        own = self.event_invokes.get(qualifier)
        if own is None:
            return replace(self, event_invoke=EventInvokeConfig()) if self.is_made else self
        return replace(self, event_invoke=own)

    def with_additions(self, added: "Additions") -> "Function":
        """Return a declared function with what Lambda's API made for it; what the file writes counts before that."""
        delays = self.event_invoke.retry_delays_s
        own = {name: replace(config, retry_delays_s=delays) for name, config in added.event_invokes.items()}
        is_written = self.writes_event_invoke or LATEST not in own
        return replace(
            self,
            versions=added.versions,
            aliases=added.aliases,
            event_invokes=own,
            provisioned=added.provisioned,
            event_invoke=self.event_invoke if is_written else own[LATEST],
            reserved_concurrency=(
                added.reserved_concurrency if self.reserved_concurrency is None else self.reserved_concurrency
            ),
        )

    def version(self, qualifier: str, *, chance: float = 1.0) -> FunctionVersion:
        """Return the version that `qualifier` names; where an alias has two, `chance` (0..1, drawn evenly) decides.

        Raises:
            FunctionNotFound: no such qualifier (semantics 1.6).
        """
        remote = self.latest.remote
        if qualifier == "" or (qualifier == LATEST and (remote is None or not remote.qualifier)):
            return self.latest
        if (alias := self.aliases.get(qualifier)) is not None:
            return self.version(alias.pick(chance))
        if (found := self.versions.get(qualifier)) is not None:
            return found
        raise FunctionNotFound(f"Function not found: {self.latest.arn}:{qualifier}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Additions:
    """What Lambda's API made for a function that the file declares; see `Function` for each."""

    versions: Mapping[str, FunctionVersion] = field(default_factory=dict)
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    event_invokes: Mapping[str, EventInvokeConfig] = field(default_factory=dict)
    reserved_concurrency: int | None = None
    provisioned: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmth:
    """How far the provisioned concurrency of a version is."""

    allocated: int = 0
    """Workers that live or start."""
    ready: int = 0
    """Of them, those that are initialised."""
    trouble: str = ""
    """Why there will be no more for now; empty: nothing hinders."""


def split_target(target: str) -> tuple[str, str]:
    """Split `name[:qualifier]` into name and qualifier (empty when there is none)."""
    name, _, qualifier = target.partition(":")
    return name, qualifier


def plain_name(name: str) -> str:
    """Return a function's name without its name space."""
    return name.partition(SPACE_MARK)[0]


def space_name(name: str) -> str:
    """Return what a function's name says of its name space: `REGION.ACCOUNT`; empty: it is in the file's."""
    return name.partition(SPACE_MARK)[2]


def function_arn(name: str, *, region: str = REGION_DEFAULT, account: str = ACCOUNT_DEFAULT) -> str:
    """Return the unqualified ARN of a function; a name with its own name space is in that one."""
    plain, mark, space = name.partition(SPACE_MARK)
    if mark:
        region, _, account = space.rpartition(".")
    return f"arn:aws:lambda:{region}:{account}:function:{plain}"

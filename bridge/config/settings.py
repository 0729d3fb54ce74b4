"""The typed settings: every section and key that the configuration file may hold, with range and default."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from bridge.config.access import AccessKeySettings, ApiSettings
from bridge.config.connections import ConnectionSettings
from bridge.config.egress import EgressSettings
from bridge.config.functions import AnyFunctionSettings
from bridge.config.mappings import MappingSettings
from bridge.config.roles import RolesSettings
from bridge.config.runtimes import InterpreterValue, RuntimeName
from bridge.config.schedules import ScheduleSettings
from bridge.config.section import Name, Section, listed, subsection
from bridge.config.sources import SourceSettings
from bridge.config.values import Address, AddressValue, HostName, Network, PathValue
from bridge.config.webhooks import WebhookSettings
from bridge.core import limits
from bridge.core.function import ACCOUNT_DEFAULT, REGION_DEFAULT

PUBLIC_DEFAULT: Final = Address("127.0.0.1", 8580)
API_DEFAULT: Final = Address("127.0.0.1", 8581)


class LogSettings(Section):
    """`[log]`: what the daemon says about itself; what functions print goes to their own logs."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe lines that are written."
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: console on a terminal, else one JSON object a line."
    )


class LogsSettings(Section):
    """`[logs]`: where the logs of functions go beside the state folder."""

    cloudwatch: bool = Field(
        default=False, description="true: to CloudWatch Logs too, under AWS's names of groups and streams."
    )
    connection: str = Field(
        default="",
        max_length=64,
        description="By which it is reached; left out: the only one of the file's region, else boto's chain.",
    )


class JournalSettings(Section):
    """`[journal]`: the log on disk that every push event goes through."""

    retention_days: float = Field(default=7, gt=0, le=3650, description="Days that events stay readable for replay.")
    retention_gb: float = Field(
        default=10, gt=0, le=100_000, description="GiB of journal kept; the oldest segments go first."
    )
    segment_mb: int = Field(
        default=limits.SEGMENT_DEFAULT_BYTES // limits.MIB,
        ge=8,
        le=1024,
        description="MiB a segment file; retention deletes whole segments.",
    )
    ballast_mb: int = Field(
        default=limits.BALLAST_DEFAULT_BYTES // limits.MIB,
        ge=0,
        le=10_240,
        description="MiB set aside on disk, given up when it is full to make room for dead letters and pruning.",
    )
    low_water_mb: int = Field(
        default=limits.LOW_WATER_DEFAULT_BYTES // limits.MIB,
        ge=0,
        le=1_048_576,
        description="MiB free on disk below which routes answer 503.",
    )
    lane_events_max: int = Field(
        default=limits.LANE_EVENTS_MAX,
        ge=1,
        le=100_000_000,
        description="Events that may wait for one function; at it its routes answer 503.",
    )
    lane_gb_max: float = Field(
        default=limits.LANE_MAX_BYTES / limits.GIB,
        gt=0,
        le=100_000,
        description="GiB that may wait for one function; at it its routes answer 503.",
    )


class TlsFiles(Section):
    """`tls = { cert, key }`: the listeners speak TLS themselves."""

    cert: PathValue = Field(description="PEM file: the certificate, then its chain.")
    key: PathValue = Field(description="PEM file of the private key, without a passphrase.")


def _tls_kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "word" if value in {"off", "upstream"} else None
    return "files" if isinstance(value, dict | TlsFiles) else None


Tls: TypeAlias = Annotated[
    Annotated[Literal["off", "upstream"], Tag("word")] | Annotated[TlsFiles, Tag("files")],
    Discriminator(
        _tls_kind,
        custom_error_type="bridge",
        custom_error_message='must be "off", "upstream" or { cert = "path", key = "path" }',
    ),
]


class ListenSettings(Section):
    """`[listen]`: two listeners, and whom they believe."""

    public: AddressValue = Field(default=PUBLIC_DEFAULT, description="host:port for webhooks; port 0 takes a free one.")
    api: AddressValue = Field(
        default=API_DEFAULT, description="host:port for administration, health and metrics; port 0 takes a free one."
    )
    tls: Tls = Field(
        default="off",
        description='"upstream": a proxy ends TLS; must be written, "off" too, to listen on more than loopback.',
    )
    trusted_proxies: tuple[Network, ...] = listed("Addresses or networks whose X-Forwarded-For is believed.")
    hosts: tuple[HostName, ...] = listed("Further names the api listener answers to, beside loopback.")
    function_url_domain: HostName = Field(
        default="localhost", description="Domain of function URLs: ID.lambda-url.REGION.DOMAIN on the public listener."
    )
    connections_max: int = Field(
        default=limits.CONNECTIONS_MAX,
        ge=2 * limits.CONNECTIONS_RESERVE,
        le=65_536,
        description=f"Open connections; {limits.CONNECTIONS_RESERVE} of them are kept for the api listener.",
    )
    header_s: float = Field(default=limits.HEADER_MAX_S, gt=0, le=60, description="Seconds for a request's head.")
    request_s: float = Field(
        default=limits.REQUEST_MAX_S, gt=0, le=300, description="Seconds for a whole request, head and body."
    )
    keepalive_s: float = Field(
        default=limits.KEEPALIVE_S, ge=0, le=3600, description="Seconds an idle connection stays open."
    )


class InvocationSettings(Section):
    """`[invocation]`: the account's limits."""

    account_concurrency: int = Field(
        default=limits.ACCOUNT_CONCURRENCY_DEFAULT,
        ge=1,
        le=100_000,
        description="Invocations running at once, of each account and region.",
    )
    legacy_memory_steps: bool = Field(
        default=False,
        description=f"true: memory as Lambda once had it, up to {limits.LEGACY_MEMORY_MAX_MB} MB in steps of "
        f"{limits.LEGACY_MEMORY_STEP_MB} MB.",
    )
    async_payload_max_bytes: int = Field(
        default=limits.ASYNC_PAYLOAD_MAX_BYTES,
        ge=1,
        le=limits.SYNC_PAYLOAD_MAX_BYTES,
        description="Bytes of the serialised event of an asynchronous invocation; 413 above.",
    )
    sync_wait_s: float = Field(
        default=limits.SYNC_CONCURRENCY_WAIT_S,
        ge=0,
        le=60,
        description="Seconds a synchronous call waits at a concurrency limit; then 429.",
    )
    event_bridge_source: str = Field(
        default="lambda",
        min_length=1,
        max_length=256,
        description='Source of the entries that EventBridge gets; "lambda" as on AWS, whose guide says aws.lambda.',
    )


class RuntimeSettings(Section):
    """`[runtime]`: the local workers."""

    workers_max: int | None = Field(
        default=None, ge=1, le=10_000, description="Worker processes at once; left out: from cores and free memory."
    )
    idle_s: float = Field(default=300, ge=1, le=86_400, description="Seconds an idle worker is kept.")
    sandbox: Literal["auto", "basic"] = Field(
        default="auto",
        description="auto: mount namespace, Landlock and seccomp where the kernel has them; basic: none of them.",
    )
    sandbox_min: Literal["basic", "seccomp", "landlock", "namespaces", "cgroup"] = Field(
        default="basic", description="The daemon does not start where workers are confined by less than this level."
    )
    packages: PathValue | None = Field(
        default=None,
        description="Folder with boto3, last on every function's import path; left out: the one installed with bridge.",
    )
    log_mb_per_function: int = Field(
        default=64, ge=1, le=102_400, description="MiB of log kept a function; the oldest goes first."
    )


class DevSettings(Section):
    """`[dev]`: what belongs to trials alone."""

    reset: bool = Field(
        default=False, description="true lets `bridge reset` clear what Lambda's API made; on loopback only."
    )


class Settings(Section):
    """The whole file."""

    state: PathValue = Field(
        default_factory=lambda: Path.cwd() / ".bridge",
        description="State folder; left out: .bridge in the working directory.",
    )
    region: str = Field(
        default=REGION_DEFAULT,
        pattern=r"^[a-z]{2,8}(-[a-z]{2,16}){1,3}-[0-9]{1,2}$",
        description="Region in ARNs, such as eu-central-1.",
    )
    account: str = Field(default=ACCOUNT_DEFAULT, pattern=r"^[0-9]{12}$", description="Account in ARNs, 12 digits.")
    drain_grace_s: float = Field(
        default=limits.DRAIN_GRACE_DEFAULT_S, ge=0, le=900, description="Seconds a stop waits for what runs."
    )
    log: LogSettings = subsection("What the daemon says about itself.")
    logs: LogsSettings = subsection("Where the logs of functions go beside the state folder.")
    journal: JournalSettings = subsection("The log on disk that every push event goes through.")
    listen: ListenSettings = subsection("Addresses, TLS and limits of the two listeners.")
    api: ApiSettings = subsection("Lambda's API.")
    access_keys: dict[Name, AccessKeySettings] = Field(default={}, description="Keys of Lambda's API, by id.")
    invocation: InvocationSettings = subsection("The account's limits.")
    dev: DevSettings = subsection("What belongs to trials alone.")
    runtime: RuntimeSettings = subsection("The local workers.")
    runtimes: dict[RuntimeName, InterpreterValue] = Field(
        default={},
        description='Path of the Python that runs functions of a runtime, or "bridge", by AWS\'s name of it.',
    )
    roles: RolesSettings = subsection("Execution roles, by name, and what others may do.")
    egress: EgressSettings = subsection("Where callers of Lambda's API may have the daemon connect.")
    connections: dict[Name, ConnectionSettings] = Field(default={}, description="Clusters and AWS, by name.")
    functions: dict[Name, AnyFunctionSettings] = Field(default={}, description="What runs, by name.")
    sources: dict[Name, SourceSettings] = Field(default={}, description="Push sources, by name.")
    mappings: dict[Name, MappingSettings] = Field(default={}, description="Event source mappings, by name.")

    @property
    def webhooks(self) -> dict[str, WebhookSettings]:
        """The push sources that are routes of the public listener, by name."""
        return {name: source for name, source in self.sources.items() if isinstance(source, WebhookSettings)}

    @property
    def schedules(self) -> dict[str, ScheduleSettings]:
        """The push sources that tick, by name."""
        return {name: source for name, source in self.sources.items() if isinstance(source, ScheduleSettings)}

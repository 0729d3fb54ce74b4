"""`[functions.X]`: what runs, its limits, and how its asynchronous failures are handled."""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationInfo

from bridge.config.connections import aws_connection
from bridge.config.layers import LayerValue
from bridge.config.roles import ROLE_PATTERN, role_arn
from bridge.config.runtimes import checked_runtime, interpreters
from bridge.config.section import Section, listed, subsection
from bridge.config.targets import TARGET_MAX_CHARS, DeadLetterTarget, FailureTarget, SuccessTarget
from bridge.config.values import EnvironmentValue, PathValue, Secret, refuse
from bridge.config.vpc import NETWORK_DESCRIPTION, NetworkValue, VpcValue, vpc_value
from bridge.core import limits
from bridge.core.arn import parse_arn
from bridge.core.function import (
    ENVIRONMENT_NAME_PATTERN,
    RESERVED_ENVIRONMENT,
    EventInvokeConfig,
    Interpreter,
    RemoteFunction,
)
from bridge.core.logging_config import GROUP_MAX_CHARS, GROUP_PATTERN, LEVEL_DEFAULT, TEXT, LoggingConfig
from bridge.core.network import AUTO
from bridge.core.outcome import LOCAL
from bridge.registry.catalog import FunctionSpec
from bridge.registry.interpreters import PYTHON_RUNTIMES, found
from bridge.registry.layers import LAYERS_MAX
from bridge.registry.packages import handler_mistake
from bridge.registry.virtualenvs import virtualenv

if TYPE_CHECKING:
    from bridge.config.settings import Settings

_FUNCTION: Final = re.compile(r"function:[a-zA-Z0-9_-]{1,64}(?::(?:\$LATEST|[a-zA-Z0-9_-]{1,128}))?\Z")


def _checked_handler(handler: str, info: ValidationInfo) -> str:
    runtime = info.data.get("runtime", "")
    if mistake := handler_mistake(handler, is_python=not runtime or runtime in PYTHON_RUNTIMES):
        refuse(mistake)
    return handler


def _checked_name(name: str) -> str:
    if name in RESERVED_ENVIRONMENT:
        refuse("is set by the runtime and may not be set here")
    if not ENVIRONMENT_NAME_PATTERN.match(name):
        refuse("a variable's name is a letter, then at least one letter, digit or underscore")
    return name


def _checked_size(environment: dict[str, Secret]) -> dict[str, Secret]:
    plain = {name: secret.reveal() for name, secret in environment.items()}
    # AWS measures the map as JSON (gettingstarted-limits.html: 4 KB, all variables together).
    size = len(json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))
    if size > limits.ENVIRONMENT_MAX_BYTES:
        refuse(f"names and values are {size} bytes together; at most {limits.ENVIRONMENT_MAX_BYTES} are allowed")
    return environment


Handler: TypeAlias = Annotated[str, AfterValidator(_checked_handler)]
VariableName: TypeAlias = Annotated[str, AfterValidator(_checked_name)]
Environment: TypeAlias = Annotated[dict[VariableName, EnvironmentValue], AfterValidator(_checked_size)]
RetryDelay: TypeAlias = Annotated[float, Field(ge=0, le=limits.EVENT_AGE_MAX_S)]


class EventInvokeSettings(Section):
    """`event_invoke`: what happens to an asynchronous event after an error (API_PutFunctionEventInvokeConfig)."""

    maximum_retry_attempts: int = Field(
        default=limits.ASYNC_RETRY_ATTEMPTS_DEFAULT, ge=0, le=2, description="Retries after a function error."
    )
    maximum_event_age_s: int = Field(
        default=limits.EVENT_AGE_DEFAULT_S,
        ge=limits.EVENT_AGE_MIN_S,
        le=limits.EVENT_AGE_MAX_S,
        description="Seconds after which an event is given up.",
    )
    retry_delays_s: tuple[RetryDelay, ...] = listed(
        "Seconds before each retry, 0..21600 each; the last one counts for any further retry.",
        default=limits.ASYNC_RETRY_DELAYS_DEFAULT_S,
        min_length=1,
        max_length=10,
    )
    on_success: SuccessTarget = Field(
        default="",
        max_length=TARGET_MAX_CHARS,
        description="ARN (SQS, SNS, Lambda, EventBridge) or kafka://CONNECTION/topic told of successes; default none.",
    )
    on_failure: FailureTarget = Field(
        default=LOCAL,
        max_length=TARGET_MAX_CHARS,
        description='Where failed events go: "spill" (the local dead letters), an ARN (S3 too), '
        "kafka://CONNECTION/topic.",
    )


class DeadLetterSettings(Section):
    """`dead_letter_config`: who gets the events themselves that failed (API_DeadLetterConfig)."""

    target_arn: DeadLetterTarget = Field(
        max_length=TARGET_MAX_CHARS, description="ARN of a standard SQS queue or SNS topic."
    )


class LoggingSettings(Section):
    """`logging_config`: how the function's log is written (API_LoggingConfig)."""

    log_format: Literal["Text", "JSON"] = Field(
        default=TEXT, description="JSON: one object a line, of the platform and of Python's logger."
    )
    application_log_level: Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"] | None = Field(
        default=None, description="Of JSON: least severe records of the function that are written; default INFO."
    )
    system_log_level: Literal["DEBUG", "INFO", "WARN"] | None = Field(
        default=None, description="Of JSON: least severe records of the platform that are written; default INFO."
    )
    log_group: str = Field(
        default="",
        max_length=GROUP_MAX_CHARS,
        pattern=rf"^({GROUP_PATTERN})?$",
        description="Name of the log group, 1..512 of a-z A-Z 0-9 . - _ / #; left out: /aws/lambda/NAME.",
    )


class FunctionSettings(Section):
    """One function: a folder, a handler, and limits as on AWS."""

    code: PathValue = Field(description="Folder that becomes the task root.")
    runtime: Annotated[str, AfterValidator(checked_runtime)] = Field(
        default="",
        description="AWS's name of what runs it, such as nodejs22.x or provided.al2023; \"\": the daemon's Python.",
    )
    handler: Handler = Field(
        max_length=limits.HANDLER_MAX_CHARS,
        description="module.function; folder/module.function in a subfolder.",
    )
    virtualenv: PathValue | None = Field(
        default=None, description="Folder of the virtual environment whose Python and packages it has; left out: none."
    )
    layers: tuple[LayerValue, ...] = listed(
        "ARNs of layer versions, folders and zips that are merged into /opt, in this order.", max_length=LAYERS_MAX
    )
    timeout_s: int = Field(
        default=limits.TIMEOUT_DEFAULT_S,
        ge=limits.TIMEOUT_MIN_S,
        le=limits.TIMEOUT_MAX_S,
        description="Seconds an invocation may take.",
    )
    memory_mb: int = Field(
        default=limits.MEMORY_DEFAULT_MB,
        ge=limits.MEMORY_MIN_MB,
        le=limits.MEMORY_MAX_MB,
        description="MB of memory of one worker.",
    )
    ephemeral_storage_mb: int = Field(
        default=limits.EPHEMERAL_STORAGE_DEFAULT_MB,
        ge=limits.EPHEMERAL_STORAGE_MIN_MB,
        le=limits.EPHEMERAL_STORAGE_MAX_MB,
        description="MB of the worker's own /tmp.",
    )
    environment: Environment = Field(
        default={}, description="Variables, 4096 bytes together; a value is a string, { env = ... } or { file = ... }."
    )
    reserved_concurrency: int | None = Field(
        default=None,
        ge=0,
        le=100_000,
        description="Invocations at once, kept for this function; 0 stops it; left out: draws on the account's.",
    )
    event_invoke: EventInvokeSettings = subsection("How asynchronous events are retried, and who is told of their end.")
    dead_letter_config: DeadLetterSettings | None = Field(
        default=None, description="Queue or topic that gets asynchronous events that failed; left out: none."
    )
    logging_config: LoggingSettings = subsection("How its log is written.")
    connection: str = Field(
        default="",
        max_length=64,
        description="Connection by which its targets' ARNs are reached; left out: the only one of their region.",
    )
    role: str = Field(
        default="",
        pattern=ROLE_PATTERN,
        description="Its execution role: a [roles.X], or an ARN; left out: none, and nothing is asked of it.",
    )
    vpc_config: VpcValue = Field(default=None, description="Its subnets and security groups; left out: none.")
    network: NetworkValue = Field(default=AUTO, description=NETWORK_DESCRIPTION)


def _checked_arn(written: str) -> str:
    try:
        arn = parse_arn(written)
    except ValueError as error:
        refuse(str(error))
    if arn.service != "lambda" or not arn.region or not arn.account or not _FUNCTION.match(arn.resource):
        refuse(
            "must be a function's ARN: arn:aws:lambda:REGION:ACCOUNT:function:NAME, or with :VERSION or :ALIAS behind"
        )
    return written


class RemoteFunctionSettings(Section):
    """One function on AWS, or behind any endpoint that speaks Lambda's API."""

    arn: Annotated[str, AfterValidator(_checked_arn)] = Field(
        max_length=300, description="ARN of a function elsewhere, in place of code and handler; may end in a qualifier."
    )
    connection: str = Field(
        default="",
        max_length=64,
        description="Connection by which it and its targets' ARNs are reached; left out: the only one of their region.",
    )
    timeout_s: int = Field(
        default=limits.TIMEOUT_MAX_S,
        ge=limits.TIMEOUT_MIN_S,
        le=limits.TIMEOUT_MAX_S,
        description="Seconds it may take there; its answer is waited for a little longer.",
    )
    handover: bool = Field(
        default=False, description="true: events go to its own asynchronous queue (InvocationType Event)."
    )
    reserved_concurrency: int | None = Field(
        default=None,
        ge=0,
        le=100_000,
        description="Invocations at once from here; 0 stops it; left out: draws on the account's.",
    )
    event_invoke: EventInvokeSettings = subsection("How asynchronous events are retried, and who is told of their end.")
    dead_letter_config: DeadLetterSettings | None = Field(
        default=None, description="Queue or topic that gets asynchronous events that failed; left out: none."
    )


def _kind(value: Any) -> str:
    is_remote = isinstance(value, RemoteFunctionSettings) or (isinstance(value, dict) and "arn" in value)
    return "remote function" if is_remote else "local function"


AnyFunctionSettings: TypeAlias = Annotated[
    Annotated[FunctionSettings, Tag("local function")] | Annotated[RemoteFunctionSettings, Tag("remote function")],
    Discriminator(_kind),
]


def function_specs(settings: "Settings") -> list[FunctionSpec]:
    """Return what the catalog is built from; secrets are revealed here, and only here, for the workers' environment."""
    mapped = interpreters(settings)
    return [_spec(name, function, settings, mapped) for name, function in settings.functions.items()]


def _spec(
    name: str,
    function: FunctionSettings | RemoteFunctionSettings,
    settings: "Settings",
    mapped: Mapping[str, Interpreter],
) -> FunctionSpec:
    if isinstance(function, RemoteFunctionSettings):
        arn = parse_arn(function.arn)
        return FunctionSpec(
            name=name,
            timeout_s=function.timeout_s,
            reserved_concurrency=function.reserved_concurrency,
            event_invoke=_event_invoke(function.event_invoke),
            writes_event_invoke="event_invoke" in function.model_fields_set,
            dead_letter_target=_dead_letter_target(function),
            connection=function.connection,
            remote=RemoteFunction(
                arn=arn,
                connection=aws_connection(settings, arn=arn, name=function.connection),
                handover=function.handover,
            ),
        )
    runtime, interpreter = function.runtime, None
    if function.virtualenv is not None:
        interpreter = virtualenv(str(function.virtualenv))
        runtime = f"python{interpreter.version}"
    return FunctionSpec(
        name=name,
        code=function.code,
        handler=function.handler,
        runtime=runtime,
        interpreter=interpreter or found(runtime, mapped),
        layers=function.layers,
        timeout_s=function.timeout_s,
        memory_mb=function.memory_mb,
        ephemeral_storage_mb=function.ephemeral_storage_mb,
        environment={variable: secret.reveal() for variable, secret in function.environment.items()},
        reserved_concurrency=function.reserved_concurrency,
        event_invoke=_event_invoke(function.event_invoke),
        writes_event_invoke="event_invoke" in function.model_fields_set,
        dead_letter_target=_dead_letter_target(function),
        connection=function.connection,
        role=role_arn(function.role, settings.account),
        logging=_logging(function.logging_config),
        vpc=vpc_value(function.vpc_config),
        network=function.network,
    )


def _logging(settings: LoggingSettings) -> LoggingConfig:
    return LoggingConfig(
        is_json=settings.log_format != TEXT,
        application_level=settings.application_log_level or LEVEL_DEFAULT,
        system_level=settings.system_log_level or LEVEL_DEFAULT,
        group=settings.log_group,
    )


def _dead_letter_target(function: FunctionSettings | RemoteFunctionSettings) -> str:
    return function.dead_letter_config.target_arn if function.dead_letter_config is not None else ""


def _event_invoke(settings: EventInvokeSettings) -> EventInvokeConfig:
    return EventInvokeConfig(
        maximum_retry_attempts=settings.maximum_retry_attempts,
        maximum_event_age_s=settings.maximum_event_age_s,
        retry_delays_s=settings.retry_delays_s,
        on_success=settings.on_success,
        on_failure=settings.on_failure,
    )

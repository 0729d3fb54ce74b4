"""Reads the bodies of writing operations: types, shapes and ranges, refusals in AWS's words (semantics 0.1, 5.1)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import orjson

from bridge.api.awslambda.errors import Refused, invalid
from bridge.core import limits, logging_config, network
from bridge.core.function import ENVIRONMENT_NAME_PATTERN, RESERVED_ENVIRONMENT
from bridge.registry.interpreters import RUNTIMES

T = TypeVar("T")

ARCHITECTURES: Final = ("x86_64", "arm64")
ROLE_PATTERN: Final = r"arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+"
HANDLER_PATTERN: Final = r"[^\s]+"
DESCRIPTION_MAX_CHARS: Final = 256
TAGS_MAX: Final = 50
TAG_KEY_MAX_CHARS: Final = 128
TAG_VALUE_MAX_CHARS: Final = 256
_DEAD_LETTER_PATTERN: Final = r"(arn:(aws[a-zA-Z-]*)?:[a-z0-9-.]+:.*)|()"
_KMS_KEY_PATTERN: Final = r"(arn:(aws[a-zA-Z-]*)?:kms:[a-z0-9-]+:\d{12}:(key|alias)/[a-zA-Z0-9/_-]{1,256})|()"
"""Of a key or an alias, more narrowly than AWS: it is what is asked for, and where."""
_ID_SHOWN_CHARS: Final = 30
_JSON_TYPES: Final[Mapping[type, str]] = {str: "String", int: "Integer", bool: "Boolean", dict: "Map", list: "List"}
_NOT_OFFERED: Final = (
    "FileSystemConfigs", "ImageConfig", "DurableConfig", "TenancyConfig", "CapacityProviderConfig", "PublishTo",
)  # fmt: skip


class Body:
    """Members of a request, each taken by its type; mistakes of shape are collected and told as one."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._members = members
        self._mistakes: list[str] = []

    @classmethod
    def of(cls, data: bytes) -> "Body":
        """Return the members of a JSON object; no body at all has none.

        Raises:
            Refused: it is something else.
        """
        try:
            found = orjson.loads(data) if data.strip() else {}
        except orjson.JSONDecodeError as error:
            raise Refused("SerializationException", f"Could not parse request body into json: {error}") from error
        if not isinstance(found, dict):
            raise Refused("SerializationException", "Could not parse request body into json: an object is expected")
        return cls(found)

    def get(self, name: str, kind: type[T]) -> T | None:
        """Return a member; None where it is missing or null.

        Raises:
            Refused: it has another type.
        """
        value = self._members.get(name)
        if value is None:
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            found = {str: "STRING_VALUE", bool: "TRUE_VALUE", int: "NUMBER_VALUE", float: "NUMBER_VALUE"}
            shown = found.get(type(value), "START_OBJECT" if isinstance(value, dict) else "START_ARRAY")
            text = f"{shown} can not be converted to a{'n' if kind is int else ''} {_JSON_TYPES.get(kind, 'String')}"
            raise Refused("SerializationException", text)
        return value

    def text(self, name: str, *, pattern: str = "", most: int = 0, required: bool = False) -> str | None:
        """Return a text."""
        value = self.get(name, str)
        if value is None:
            if required:
                self._mistake(None, name, "not be null")
            return None
        if most and len(value) > most:
            self._mistake(value, name, f"have length less than or equal to {most}")
        if pattern and not re.fullmatch(pattern, value):
            self._mistake(value, name, f"satisfy regular expression pattern: {pattern}")
        return value

    def number(self, name: str, least: int, most: int, *, required: bool = False, step: int = 1) -> int | None:
        """Return a whole number within a range, a multiple of `step`."""
        value = self.get(name, int)
        if value is None and required:
            self._mistake(None, name, "not be null")
        if value is not None and value < least:
            self._mistake(value, name, f"have value greater than or equal to {least}")
        if value is not None and value > most:
            self._mistake(value, name, f"have value less than or equal to {most}")
        if value is not None and value % step:
            self._mistake(value, name, f"be a multiple of {step}")
        return value

    def has(self, name: str) -> bool:
        """Tell whether a member is there and not null."""
        return self._members.get(name) is not None

    def time(self, name: str) -> float | None:
        """Return epoch seconds. Raises Refused: no number."""
        value = self._members.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Refused("SerializationException", f"{name} must be epoch seconds")
        return float(value)

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        """Return one of some words."""
        value = self.get(name, str)
        if value is not None and value not in choices:
            self._mistake(value, name, f"satisfy enum value set: [{', '.join(choices)}]")
        return value

    def inner(self, name: str) -> "Body | None":
        """Return a member that is a structure; its mistakes are told with the others."""
        value = self.get(name, dict)
        if value is None:
            return None
        made = Body(value)
        made._mistakes = self._mistakes
        return made

    def refuse(self, value: object, name: str, constraint: str) -> None:
        """Tell a mistake with the others: `constraint` is what AWS says after `Member must `."""
        self._mistake(value, name, constraint)

    def refuse_others(self) -> None:
        """Refuse members that are not offered, where they say anything."""
        for name in _NOT_OFFERED:
            if self._members.get(name):
                raise invalid(f"{name} is not offered")

    def finish(self) -> None:
        """Raise what was collected.

        Raises:
            Refused: ValidationException, with every mistake.
        """
        if self._mistakes:
            count = len(self._mistakes)
            text = f"{count} validation error{'s' if count > 1 else ''} detected: {'; '.join(self._mistakes)}"
            raise Refused("ValidationException", text, kind="")

    def _mistake(self, value: object, name: str, constraint: str) -> None:
        shown = "null" if value is None else f"'{str(value)[:200]}'"
        member = name[:1].lower() + name[1:]
        self._mistakes.append(f"Value {shown} at '{member}' failed to satisfy constraint: Member must {constraint}")


def configuration(body: Body, *, creates: bool, has_memory_steps: bool = False) -> dict[str, Any]:
    """Return the settings that a request of CreateFunction or UpdateFunctionConfiguration holds, by AWS's names.

    Args:
        body: the request's.
        creates: what a function must have is asked for.
        has_memory_steps: memory is counted as Lambda once did, `[invocation] legacy_memory_steps`.

    Raises:
        Refused: a value that AWS refuses, or that is not offered here, which is said by name.
    """
    found: dict[str, Any] = {
        "Role": body.text("Role", pattern=ROLE_PATTERN, required=creates),
        "Handler": body.text("Handler", pattern=HANDLER_PATTERN, most=limits.HANDLER_MAX_CHARS),
        "Description": body.text("Description", most=DESCRIPTION_MAX_CHARS),
        "Timeout": body.number("Timeout", limits.TIMEOUT_MIN_S, limits.TIMEOUT_MAX_S),
        "MemorySize": _memory(body, has_steps=has_memory_steps),
        "KMSKeyArn": body.text("KMSKeyArn", pattern=_KMS_KEY_PATTERN),
        "EphemeralStorage": _storage(body),
        "TracingConfig": _tracing(body),
        "LoggingConfig": _logging(body),
        "DeadLetterConfig": _dead_letter(body),
        "VpcConfig": _vpc(body),
        "SnapStart": _snap_start(body),
    }
    runtime = body.get("Runtime", str)
    body.finish()
    _check_offered(body)
    found["VpcConfig"] = _checked_vpc(found["VpcConfig"])
    if runtime is not None and runtime not in RUNTIMES:
        listed = ", ".join(RUNTIMES)
        raise invalid(
            f"Value {runtime[:100]} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: "
            f"[{listed}] or be a valid ARN"
        )
    found["Runtime"] = runtime
    return {name: value for name, value in found.items() if value is not None}


def _memory(body: Body, *, has_steps: bool) -> int | None:
    if not has_steps:
        return body.number("MemorySize", limits.MEMORY_MIN_MB, limits.MEMORY_MAX_MB)
    step = limits.LEGACY_MEMORY_STEP_MB
    return body.number("MemorySize", limits.MEMORY_MIN_MB, limits.LEGACY_MEMORY_MAX_MB, step=step)


def _check_offered(body: Body) -> None:
    body.refuse_others()
    if body.get("PackageType", str) not in (None, "Zip"):
        raise invalid("PackageType Image is not offered: give a zip")


def _storage(body: Body) -> dict[str, Any] | None:
    if (inner := body.inner("EphemeralStorage")) is None:
        return None
    least, most = limits.EPHEMERAL_STORAGE_MIN_MB, limits.EPHEMERAL_STORAGE_MAX_MB
    return {"Size": inner.number("Size", least, most, required=True)}


def _tracing(body: Body) -> dict[str, Any] | None:
    if (inner := body.inner("TracingConfig")) is None:
        return None
    return {"Mode": inner.choice("Mode", ("Active", "PassThrough")) or "PassThrough"}


def _logging(body: Body) -> dict[str, Any] | None:
    if (inner := body.inner("LoggingConfig")) is None:
        return None
    found = {
        "LogFormat": inner.choice("LogFormat", (logging_config.JSON, logging_config.TEXT)),
        "ApplicationLogLevel": inner.choice("ApplicationLogLevel", logging_config.APPLICATION_LEVELS),
        "SystemLogLevel": inner.choice("SystemLogLevel", logging_config.SYSTEM_LEVELS),
        "LogGroup": inner.text("LogGroup", pattern=logging_config.GROUP_PATTERN, most=logging_config.GROUP_MAX_CHARS),
    }
    return {name: value for name, value in found.items() if value is not None}


def _dead_letter(body: Body) -> dict[str, Any] | None:
    if (inner := body.inner("DeadLetterConfig")) is None:
        return None
    target = inner.text("TargetArn", pattern=_DEAD_LETTER_PATTERN) or ""
    if target and target.split(":")[2] not in ("sqs", "sns"):
        raise invalid(f"The provided dead-letter target {target[:200]} is invalid: an SQS queue or an SNS topic")
    return {"TargetArn": target} if target else {}


def _vpc(body: Body) -> dict[str, Any] | None:
    if (inner := body.inner("VpcConfig")) is None:
        return None
    subnets = _ids(inner, "SubnetIds", most=network.SUBNETS_MAX)
    groups = _ids(inner, "SecurityGroupIds", most=network.GROUPS_MAX)
    return {
        "SubnetIds": subnets,
        "SecurityGroupIds": groups,
        "Ipv6AllowedForDualStack": inner.get("Ipv6AllowedForDualStack", bool) or False,
    }


def _ids(inner: Body, name: str, *, most: int) -> list[str]:
    found = inner.get(name, list) or []
    if not all(isinstance(each, str) for each in found):
        raise Refused("SerializationException", f"VpcConfig.{name} holds Strings")
    if len(found) > most:
        shown = f"[{', '.join(each[:_ID_SHOWN_CHARS] for each in found)}]"
        inner.refuse(shown, f"vpcConfig.{name[:1].lower()}{name[1:]}", f"have length less than or equal to {most}")
    return found


def _checked_vpc(members: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return VpcConfig as it is kept: nothing of one that detaches; refuse what EC2 would not find."""
    if members is None:
        return None
    subnets, groups = members["SubnetIds"], members["SecurityGroupIds"]
    if bool(subnets) != bool(groups):
        raise invalid(network.NOT_BOTH)
    for said in (*map(network.subnet_mistake, subnets), *map(network.group_mistake, groups)):
        if said:
            raise invalid(said)
    return members if subnets else {}


def _snap_start(body: Body) -> dict[str, Any] | None:
    if (inner := body.inner("SnapStart")) is None:
        return None
    return {"ApplyOn": inner.choice("ApplyOn", ("PublishedVersions", "None")) or "None", "OptimizationStatus": "Off"}


def architectures(body: Body) -> list[str] | None:
    """Return Architectures, one; None where none is given."""
    found = body.get("Architectures", list)
    if found is None:
        return None
    if len(found) != 1 or found[0] not in ARCHITECTURES:
        shown = ", ".join(str(each)[:20] for each in found[:5])
        text = (
            f"1 validation error detected: Value '[{shown}]' at 'architectures' failed to satisfy constraint: Member "
            "must satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64]]"
        )
        raise Refused("ValidationException", text, kind="")
    return [str(found[0])]


def layers(body: Body) -> list[str] | None:
    """Return the ARNs of Layers, all of them; None where the request leaves them as they are."""
    found = body.get("Layers", list)
    if found is not None and not all(isinstance(each, str) for each in found):
        raise Refused("SerializationException", "Layers holds Strings")
    return found


def environment(body: Body) -> dict[str, str] | None:
    """Return the variables, all of them; None where the request leaves them as they are.

    Raises:
        Refused: names that are reserved or none, or more than 4 KB.
    """
    inner = body.get("Environment", dict)
    if inner is None:
        return None
    variables = Body(inner).get("Variables", dict) or {}
    for name, value in variables.items():
        if not isinstance(value, str):
            raise Refused("SerializationException", f"Environment.Variables.{name[:64]} must be a String")
        if not ENVIRONMENT_NAME_PATTERN.match(name):
            text = (
                f"1 validation error detected: Value at 'environment.variables' failed to satisfy constraint: Map keys "
                f"must satisfy constraint: [Member must satisfy regular expression pattern: "
                f"[a-zA-Z]([a-zA-Z0-9_])+]: {name[:64]!r}"
            )
            raise Refused("ValidationException", text, kind="")
        if "\0" in value or not _is_unicode(value):
            raise invalid(f"The variable {name[:64]} holds what no environment can")
    start = (
        "Lambda was unable to configure your environment variables because the environment variables you have provided"
    )
    if taken := [name for name in variables if name in RESERVED_ENVIRONMENT]:
        raise invalid(
            f"{start} contains reserved keys that are currently not supported for modification. "
            f"Reserved keys used in this request: {', '.join(sorted(taken))}"
        )
    if len(orjson.dumps(variables)) > limits.ENVIRONMENT_MAX_BYTES:
        names = ", ".join(sorted(variables))[:200]
        raise invalid(f"{start} exceeded the 4KB limit. String measured: of the names {names}")
    return dict(variables)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def tags(body: Body) -> dict[str, str]:
    """Return Tags, checked (tagging.html: 50, keys of 128, values of 256 characters, none that begins with aws:)."""
    found = body.get("Tags", dict) or {}
    for key, value in found.items():
        if not isinstance(value, str):
            raise Refused("SerializationException", f"Tags.{key[:64]} must be a String")
        if not 0 < len(key) <= TAG_KEY_MAX_CHARS or len(value) > TAG_VALUE_MAX_CHARS or key.lower().startswith("aws:"):
            raise invalid(f"The tag {key[:TAG_KEY_MAX_CHARS]!r} is invalid: 1..128 and 0..256 characters, and not aws:")
    check_tag_count(found)
    return dict(found)


def check_tag_count(found: Mapping[str, str]) -> None:
    """Refuse more than 50 tags."""
    if len(found) > TAGS_MAX:
        raise invalid(f"The number of tags exceeds the limit of {TAGS_MAX}")

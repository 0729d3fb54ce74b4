"""Values that settings are made of: secrets that never print, addresses, paths beside the file."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeAlias

from pydantic import PlainSerializer, PlainValidator, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from bridge.config.expand import Expanded
from bridge.config.files import Unreadable, beside, read_small
from bridge.core.function import LATEST, QUALIFIER_PATTERN, TARGET_PATTERN, split_target

SECRET_MAX_BYTES: Final = 64 * 1024
MASK: Final = "********"
SECRET_HINT: Final = 'write { env = "NAME" } or { file = "path" }'  # noqa: S105 - how to write one
_ADDRESS: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]{1,253})):(?P<port>[0-9]{1,9})\Z")
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?\Z")
_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a file's values are resolved against; pydantic's validation context."""

    folder: Path
    """Relative paths start here."""
    environ: Mapping[str, str] = field(repr=False)


def surroundings(info: ValidationInfo) -> Surroundings:
    """Return the context of a validation; settings made in code use the working directory and the environment."""
    if isinstance(info.context, Surroundings):
        return info.context
    return Surroundings(folder=Path.cwd(), environ=os.environ)


def refuse(text: str) -> NoReturn:
    """Raise the mistake that `text` tells, in pydantic's terms."""
    raise PydanticCustomError("bridge", "{text}", {"text": text})


# --- secrets ---


class Secret:
    """A value that is used and never shown: no repr, no dump, no pickle holds it.

    `written` is what the file says, such as `{"env": "X"}`, and may be shown.
    """

    __slots__ = ("_value", "written")

    def __init__(self, value: str, *, written: str | Mapping[str, str] = MASK) -> None:
        self._value = value
        self.written = written

    def reveal(self) -> str:
        """Return the value, for the one place that needs it."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: object) -> "Secret":
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


def _reference(value: Any, info: ValidationInfo) -> Secret:
    if isinstance(value, Secret):
        return value
    if isinstance(value, str):
        refuse(f"a secret is not written into the file; {SECRET_HINT}")
    if not isinstance(value, dict) or len(value) != 1 or not isinstance(next(iter(value.values())), str):
        refuse(f"must be a reference to a secret; {SECRET_HINT}")
    kind, target = next(iter(value.items()))
    around = surroundings(info)
    if kind == "env":
        return Secret(_from_environment(target, around.environ), written={"env": target})
    if kind == "file":
        return Secret(_from_file(around.folder / target, target), written={"file": target})
    refuse(f"must be a reference to a secret; {SECRET_HINT}")


def _from_environment(name: str, environ: Mapping[str, str]) -> str:
    if not _VARIABLE_NAME.match(name):
        refuse(f"env names no variable; {SECRET_HINT}")
    value = environ.get(name, "")
    if not value:
        refuse(f"{name} is {'empty' if name in environ else 'not set'} in the environment")
    return value


def _from_file(path: Path, written: str) -> str:
    """Return the text of a secret file without its last line end, which editors and `echo` add."""
    try:
        value = read_small(path, max_bytes=SECRET_MAX_BYTES).decode()
    except Unreadable as error:
        refuse(f"{_printable(written)}: {error}")
    except UnicodeDecodeError:
        refuse(f"{_printable(written)}: not UTF-8")
    value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        refuse(f"{_printable(written)}: the file is empty")
    return value


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)


def _environment_value(value: Any, info: ValidationInfo) -> Secret:
    """Return a function's variable; only what stands in the file as it is may be shown."""
    if isinstance(value, str):
        if "\0" in value:
            refuse("must not contain NUL")
        return Secret(str(value), written=value.written if isinstance(value, Expanded) else value)
    if isinstance(value, dict | Secret):
        secret = _reference(value, info)
        if "\0" in secret.reveal():
            refuse("must not contain NUL")
        return secret
    refuse(
        f"must be a string; {SECRET_HINT}" if isinstance(value, list) else 'must be a string; put it in quotes: "..."'
    )


_REFERENCE_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": False,
    "properties": {
        "env": {"type": "string", "description": "Name of an environment variable of the daemon."},
        "file": {"type": "string", "description": "Path of a file that holds nothing else."},
    },
}  # fmt: skip

SecretReference: TypeAlias = Annotated[
    Secret, PlainValidator(_reference), PlainSerializer(str, when_used="json"), WithJsonSchema(_REFERENCE_SCHEMA)
]
EnvironmentValue: TypeAlias = Annotated[
    Secret,
    PlainValidator(_environment_value),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "string"}, _REFERENCE_SCHEMA]}),
]


# --- addresses, networks, names ---


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener listens."""

    host: str
    """Name or IP address, without brackets."""
    port: int
    """0..65535; 0 takes a free one."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """True when only this machine can reach it; a name other than localhost counts as reachable."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"


def parse_address(text: str) -> Address:
    """Return `host:port` or `[v6]:port` as an address.

    Raises:
        ValueError: with what to write instead.
    """
    if not (found := _ADDRESS.match(text)):
        raise ValueError("must be host:port, such as 127.0.0.1:8580, 0.0.0.0:8580 or [::1]:8580")
    host, port = found["v6"] or found["host"], int(found["port"])
    if port > 65535:
        raise ValueError("the port must be 0..65535")
    if found["v6"] or host.replace(".", "").isdigit():
        try:
            ip_address(host)
        except ValueError:
            raise ValueError("not an IP address") from None
    return Address(host, port)


def _address(value: Any) -> Address:
    if isinstance(value, Address):
        return value
    try:
        return parse_address(_text(value))
    except ValueError as error:
        refuse(str(error))


def _network(value: Any) -> str:
    text = _text(value)
    try:
        return str(ip_network(text))
    except ValueError:
        pass
    try:
        wider = ip_network(text, strict=False)
    except ValueError:
        refuse("must be an IP address or network, such as 10.0.0.0/8")
    refuse(f"has bits beyond its mask; did you mean {wider}?")


def _host(value: Any) -> str:
    text = _text(value).lower()
    if not _HOST.match(text):
        refuse("must be a host name without scheme, port or path, such as bridge.internal")
    return text


def _path(value: Any, info: ValidationInfo) -> Path:
    if isinstance(value, Path):
        return value
    text = _text(value)
    if not text or "\0" in text:
        refuse("must be a path")
    return beside(surroundings(info).folder, text)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        refuse("must be a string")
    return str(value)


AddressValue: TypeAlias = Annotated[
    Address, PlainValidator(_address), PlainSerializer(str), WithJsonSchema({"type": "string", "pattern": ":[0-9]+$"})
]
Network: TypeAlias = Annotated[str, PlainValidator(_network), WithJsonSchema({"type": "string"})]
HostName: TypeAlias = Annotated[str, PlainValidator(_host), WithJsonSchema({"type": "string"})]
PathValue: TypeAlias = Annotated[Path, PlainValidator(_path), PlainSerializer(str), WithJsonSchema({"type": "string"})]


def checked_target(target: str) -> str:
    """Return a function's `name[:qualifier]` as it is, or refuse it; the name may have its name space behind it."""
    name, qualifier = split_target(target)
    if target.startswith("arn:aws") or not TARGET_PATTERN.match(name):
        refuse("must be name or name:qualifier, or a function's ARN; a name is 1..64 of a-z A-Z 0-9 _ -")
    if ":" in target and not QUALIFIER_PATTERN.match(qualifier):
        refuse(f"a qualifier is {LATEST}, a version's number or an alias: 1..128 of a-z A-Z 0-9 _ -")
    return target

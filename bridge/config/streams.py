"""Checks of connections and mappings that one key alone cannot tell: what excludes, needs or repeats what.

Like `checks`, they look at the expanded file and pass over what has the wrong type: its own section tells that.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError

from bridge.config import queues
from bridge.config.mappings import MappingSettings, read_source
from bridge.config.mistakes import Loc, listing, near, plain
from bridge.config.targets import OF_MAPPINGS, read_target
from bridge.config.tree import number, table, tables, text
from bridge.config.values import Address, parse_address
from bridge.config.webhooks import STREAM_FORMS
from bridge.core import limits
from bridge.core.function import LATEST, split_target
from bridge.core.invocation import InvocationType
from bridge.core.mapping import LOCAL_FORMATS, OF_AWS, EventSourceMapping, SourceAddress, StartingPosition, parse_source
from bridge.core.outcome import LOCAL
from bridge.core.stream import RecordFormat

_JSON_ALONE: Final = ("kinesis", "dynamodb")
"""Sources of which filters cannot ask for plain text."""
Finding: TypeAlias = tuple[Loc, str]
_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "PLAIN": ("username", "password"), "SCRAM-SHA-256": ("username", "password"),
    "SCRAM-SHA-512": ("username", "password"), "OAUTHBEARER": ("token",), "AWS_MSK_IAM": ("region",),
}  # fmt: skip
"""What each SASL mechanism needs; it takes nothing else."""
_SENT_IN_PLAIN: Final = frozenset({"PLAIN", "OAUTHBEARER", "AWS_MSK_IAM"})
"""Mechanisms that hand the broker the password or token itself; SCRAM proves that it knows it."""
_ONLY: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "consumer_group_id": (("kafka",), "kafka://"),
    "group_instance_id": (("kafka",), "kafka://"),
    "session_timeout_s": (("kafka",), "kafka://"),
    "isolation_level": (("kafka",), "kafka://"),
    "allow_remote": (("kafka", *sorted(OF_AWS)), "kafka:// and AWS"),
    "event_source_arn": (("kafka", "local"), "kafka:// and local://"),
    "archive": (
        ("kafka", "local", *sorted(OF_AWS)),
        "kafka://, AWS and local://; a push source's events are in the journal already",
    ),
    "shards": (("push", "local"), "push sources and local://; a topic has its partitions"),
    "key": (("push",), "push sources; a stream's records have keys of their own"),
}
"""Settings that only some kinds of source have."""


def mistakes(data: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what is wrong between the settings of connections and mappings."""
    for name, connection in tables(data, "connections"):
        yield from _sasl(name, connection)
        if connection.get("type") == "aws":
            yield from _aws(name, connection)
    for name, function in tables(data, "functions"):
        if (written := text(function, "connection")) and "arn" in function:
            loc = ("functions", name, "connection")
            yield from connection_of_aws(loc, written, data, arn=text(function, "arn"))
    read = {name: (mapping, _address(mapping)) for name, mapping in tables(data, "mappings")}
    found = {name: (mapping, address) for name, (mapping, address) in read.items() if address is not None}
    for name, (mapping, address) in found.items():
        yield from _reaches(name, address, data)
        yield from _only(name, mapping, address)
        yield from _key(name, mapping, address, data)
        yield from _named_connection(name, mapping, address, data)
        yield from queues.mistakes(name, mapping, address)
    for name, (mapping, known) in read.items():
        yield from _position(name, mapping, known)
        yield from _window(name, mapping, known)
        yield from _arn(name, mapping, known)
        yield from _filters(name, mapping, known)
        yield from _destination(name, mapping, known, data)
    yield from _repeated(found, data)
    yield from _groups(found, data)
    yield from _shards(found)
    yield from _unread(data, {address.name for _, address in found.values() if address.kind == "push"})


# --- connections ---


def _sasl(name: str, connection: Mapping[str, Any]) -> Iterator[Finding]:
    sasl = table(connection, "sasl")
    mechanism = text(sasl, "mechanism")
    if mechanism not in _NEEDS:
        return
    for key in ("username", "password", "token", "region"):
        if key in _NEEDS[mechanism] and not sasl.get(key):
            yield (
                ("connections", name, "sasl", key),
                f"missing: {mechanism} needs {listing(_NEEDS[mechanism], last='and')}",
            )
        elif key not in _NEEDS[mechanism] and sasl.get(key):
            yield ("connections", name, "sasl", key), f"{mechanism} has no {key}"
    is_open = connection.get("tls", False) is False and connection.get("insecure") is not True
    if is_open and mechanism in _SENT_IN_PLAIN and not _is_local(connection):
        what = "password" if mechanism == "PLAIN" else "token"
        said = f"the {what} would pass in plain text to another machine: "
        yield ("connections", name, "sasl"), said + "write tls = true, or insecure = true where that is meant"


def _aws(name: str, connection: Mapping[str, Any]) -> Iterator[Finding]:
    loc = ("connections", name)
    for key, other in (("access_key_id", "secret_access_key"), ("secret_access_key", "access_key_id")):
        if connection.get(other) and not connection.get(key):
            yield (*loc, key), f"missing: {other} is there"
    if connection.get("session_token") and not connection.get("access_key_id"):
        yield (*loc, "session_token"), "only together with access_key_id and secret_access_key"
    if connection.get("profile") and connection.get("access_key_id"):
        yield (*loc, "profile"), "not together with access_key_id: who is it?"
    if connection.get("external_id") and not connection.get("role_arn"):
        yield (*loc, "external_id"), "only with role_arn"
    if connection.get("insecure") is True:
        return
    services = table(connection, "endpoint_urls")
    urls: list[tuple[Loc, Any]] = [((*loc, "endpoint_url"), connection.get("endpoint_url"))]
    for place, url in urls + [((*loc, "endpoint_urls", key), url) for key, url in services.items()]:
        if isinstance(url, str) and url.startswith("http://") and not _is_loopback(url):
            yield place, "events would pass in plain text to another machine: write https, or insecure = true"


def _is_loopback(url: str) -> bool:
    """Tell whether a URL is on this machine; what is no URL is told elsewhere."""
    try:
        host = urlsplit(url).hostname or ""
        return Address(host, 0).is_loopback
    except ValueError:
        return True


def _is_local(connection: Mapping[str, Any]) -> bool:
    """Tell whether all brokers are on this machine; what is no address is told elsewhere."""
    servers = connection.get("bootstrap_servers")
    try:
        return isinstance(servers, list) and all(parse_address(server).is_loopback for server in servers)
    except (TypeError, ValueError):
        return True


# --- one mapping ---


def _address(mapping: Mapping[str, Any]) -> SourceAddress | None:
    try:
        return read_source(text(mapping, "source"))
    except PydanticCustomError:
        return None  # told by its own section


def _reaches(name: str, address: SourceAddress, data: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield where the source is not in the file."""
    loc = ("mappings", name, "source")
    if address.kind == "kafka" and not address.is_inline:
        yield from connection_of_cluster(loc, address.connection, data)
    if address.kind in OF_AWS and not address.arn:
        yield from connection_of_aws(loc, address.connection, data)
    if address.kind != "push":
        return
    sources = dict(tables(data, "sources", broken=True))
    source = sources.get(address.name)
    if source is None:
        hint = near(address.name, sources) or "; write the name of a push source, or a URL: kafka://CONNECTION/topic"
        yield loc, f"no source {plain(address.name)} here{hint}"
    elif text(source, "invocation_type", InvocationType.EVENT) != InvocationType.EVENT:
        kind = plain(text(source, "invocation_type"))
        yield loc, f"sources.{plain(address.name)} is {kind}: only what is stored first, by Event, is a stream"


def connection_of_cluster(loc: Loc, connection: str, data: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield why `connection`, named at `loc`, is no cluster of the file's."""
    known = [name for name, _ in tables(data, "connections", broken=True)]
    if connection not in known:
        hint = near(connection, known) or "; write [connections.X], or the address: kafka://host:port/topic"
        yield loc, f"no connection {plain(connection)} here{hint}"
    elif _type(connection, data) == "aws":
        yield loc, f"connections.{plain(connection)} is AWS, no cluster"


def connection_of_aws(loc: Loc, connection: str, data: Mapping[str, Any], *, arn: str = "") -> Iterator[Finding]:
    """Yield why `connection`, named at `loc`, is none that reaches AWS, or what the ARN is of."""
    known = [name for name, _ in tables(data, "connections", broken=True) if _type(name, data) == "aws"]
    every = [name for name, _ in tables(data, "connections", broken=True)]
    if connection not in every:
        hint = near(connection, known) or '; write [connections.X] with type = "aws"'
        yield loc, f"no connection {plain(connection)} here{hint}"
    elif connection not in known:
        yield loc, f"connections.{plain(connection)} is a cluster of Kafka, not AWS"
    elif arn.count(":") >= 5 and (
        (region := text(table(table(data, "connections"), connection), "region")) != arn.split(":")[3]
    ):
        yield loc, f"connections.{plain(connection)} is in {plain(region)}, the ARN in {plain(arn.split(':')[3])}"


def _type(connection: str, data: Mapping[str, Any]) -> str:
    return text(table(table(data, "connections"), connection), "type", "kafka")


def _only(name: str, mapping: Mapping[str, Any], address: SourceAddress) -> Iterator[Finding]:
    for key, (kinds, words) in _ONLY.items():
        if (
            address.kind not in kinds
            and mapping.get(key, default := MappingSettings.model_fields[key].default) != default
        ):
            yield ("mappings", name, key), f"only for {words}"


def _key(name: str, mapping: Mapping[str, Any], address: SourceAddress, data: Mapping[str, Any]) -> Iterator[Finding]:
    written = text(table(table(data, "sources"), address.name), "format") if address.kind == "push" else ""
    if written in STREAM_FORMS and text(mapping, "key").startswith("header:"):
        yield ("mappings", name, "key"), f"an event of format {written} has no headers; write body:FIELD"


def _named_connection(
    name: str, mapping: Mapping[str, Any], address: SourceAddress, data: Mapping[str, Any]
) -> Iterator[Finding]:
    connection, loc = text(mapping, "connection"), ("mappings", name, "connection")
    target = text(mapping, "on_failure")
    arns = [arn for arn in (address.arn, target if target.startswith("arn:") else "") if arn]
    if connection and not arns:
        yield loc, "only for a source or on_failure that is an ARN; a URL has it inside"
    for arn in arns if connection else ():
        # A bucket's ARN has no region: any connection reaches it.
        yield from connection_of_aws(loc, connection, data, arn=arn if arn.split(":")[3:4] != [""] else "")


def _position(name: str, mapping: Mapping[str, Any], address: SourceAddress | None) -> Iterator[Finding]:
    is_timed = mapping.get("starting_position") == StartingPosition.AT_TIMESTAMP
    if is_timed and address is not None and address.format == "dynamodb":
        yield (
            ("mappings", name, "starting_position"),
            "AT_TIMESTAMP: unsupported by DynamoDB streams (as on AWS); TRIM_HORIZON or LATEST",
        )
        return
    loc = ("mappings", name, "starting_position_timestamp")
    if is_timed and "starting_position_timestamp" not in mapping:
        yield loc, "missing: AT_TIMESTAMP needs a time, such as 2026-01-31T08:00:00Z"
    elif "starting_position_timestamp" in mapping and not is_timed:
        yield loc, 'only with starting_position = "AT_TIMESTAMP"'


def _window(name: str, mapping: Mapping[str, Any], address: SourceAddress | None) -> Iterator[Finding]:
    loc = ("mappings", name, "tumbling_window_s")
    if number(mapping, "tumbling_window_s", 0) <= 0:
        return
    if address is not None and address.format == "kafka":
        yield loc, "Kafka has no tumbling windows (AWS: Kinesis and DynamoDB streams alone)"
    elif number(mapping, "parallelization_factor", 1) > 1:
        yield loc, "not together with a parallelization_factor above 1"


def _arn(name: str, mapping: Mapping[str, Any], address: SourceAddress | None) -> Iterator[Finding]:
    service = (text(mapping, "event_source_arn").split(":") + [""] * 3)[2]
    if service and address is not None and address.format in LOCAL_FORMATS and service != address.format:
        yield ("mappings", name, "event_source_arn"), f"an ARN of {service}, but its records are {address.format}'s"


def _filters(name: str, mapping: Mapping[str, Any], address: SourceAddress | None) -> Iterator[Finding]:
    """Yield what AWS refuses when the mapping is made: plain text asked of data that is JSON alone."""
    patterns = mapping.get("filters")
    if address is None or address.format not in _JSON_ALONE or not isinstance(patterns, list):
        return
    # Only a file with such filters pays for it.
    from bridge.pipeline.criteria import PatternInvalid, compile_criteria
    from bridge.pipeline.filters import compile_pattern

    for index, pattern in enumerate(patterns):
        try:
            compile_pattern(pattern)
        except (PatternInvalid, TypeError):
            continue  # told by its own section
        try:
            compile_criteria([pattern], format=RecordFormat(address.format))
        except PatternInvalid as error:
            yield ("mappings", name, "filters", index), f"not a filter pattern: {error}"


def _destination(
    name: str, mapping: Mapping[str, Any], address: SourceAddress | None, data: Mapping[str, Any]
) -> Iterator[Finding]:
    loc, target = ("mappings", name, "on_failure"), text(mapping, "on_failure", LOCAL)
    if target == LOCAL or (address is not None and address.kind == "sqs"):
        return  # a queue's failures go back to it: told with its other settings
    try:
        arn = read_target(target, services=OF_MAPPINGS)
    except PydanticCustomError:
        return  # told by its own section
    if arn is None:
        topic = parse_source(target)
        yield from connection_of_cluster(loc, topic.connection, data)
        if address is not None and _topic(address, data) == _topic(topic, data):
            yield loc, "must not be the source's own topic"


# --- between mappings ---


def _repeated(
    found: Mapping[str, tuple[Mapping[str, Any], SourceAddress]], data: Mapping[str, Any]
) -> Iterator[Finding]:
    """Yield mappings of the same source and function; AWS answers 409 with these words (semantics 3.2)."""
    known: dict[tuple[object, ...], str] = {}
    for name, (mapping, address) in found.items():
        function, qualifier = split_target(text(mapping, "function"))
        if not function:
            continue
        owner = known.setdefault((_stream(address, data), function, qualifier or LATEST), name)
        if owner != name:
            yield ("mappings", name, "source"), _conflict(address, data, function=function, owner=owner)


def _conflict(address: SourceAddress, data: Mapping[str, Any], *, function: str, owner: str) -> str:
    source, topics = address.name, ""
    if address.kind == "kafka":
        source, topics = ",".join(_servers(address, data)), f', topics ("{address.name}")'
    uuid = EventSourceMapping(name=owner, source="", function="").uuid
    if address.format == "sqs":
        return (
            f'An event source mapping with SQS arn (" {address.arn or address.name} ") and function (" {function} ") '
            f"already exists. Please update or delete the existing mapping with UUID {uuid}: mappings.{plain(owner)}"
        )
    if address.format in _JSON_ALONE:
        return (
            f'The event source arn (" {address.arn or address.name} ") and function (" {function} ") provided mapping '
            f"already exists. Please update or delete the existing mapping with UUID {uuid}: mappings.{plain(owner)}"
        )
    return (
        f'An event source mapping with event source ("{source}"), function ("{function}"){topics} already exists. '
        f"Please update or delete the existing mapping with UUID {uuid}: mappings.{plain(owner)}"
    )


def _groups(found: Mapping[str, tuple[Mapping[str, Any], SourceAddress]], data: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield mappings that would take each other's records: one topic, one consumer group."""
    known: dict[tuple[object, ...], str] = {}
    for name, (mapping, address) in found.items():
        if address.kind != "kafka":
            continue
        group = text(mapping, "consumer_group_id")
        owner = known.setdefault((_topic(address, data), group or f"bridge-{name}"), name)
        if owner != name:
            key = "consumer_group_id" if group else "source"
            yield ("mappings", name, key), f"mappings.{plain(owner)} reads this topic with the same consumer group"


def _shards(found: Mapping[str, tuple[Mapping[str, Any], SourceAddress]]) -> Iterator[Finding]:
    """Yield mappings that see one local stream with another number of shards, or as records of another source."""
    known: dict[str, tuple[str, float]] = {}
    formats: dict[str, tuple[str, str]] = {}
    for name, (mapping, address) in found.items():
        if address.kind == "local":
            shards = number(mapping, "shards", limits.STREAM_SHARDS_DEFAULT)
            owner, first = known.setdefault(address.name, (name, shards))
            other, form = formats.setdefault(address.name, (name, address.format))
            if address.format != form:
                yield ("mappings", name, "source"), f"mappings.{plain(other)} reads the same stream as={form}"
            if shards != first:
                loc = ("mappings", name, "shards")
                yield loc, f"mappings.{plain(owner)} reads the same stream with {first:.15g} shards, not {shards:.15g}"


def _unread(data: Mapping[str, Any], streams: set[str]) -> Iterator[Finding]:
    """Yield push sources whose events nobody would get."""
    for name, source in tables(data, "sources"):
        if "function" in source:
            continue
        kind = text(source, "invocation_type", InvocationType.EVENT)
        if kind in (InvocationType.REQUEST_RESPONSE, InvocationType.DRY_RUN):
            yield ("sources", name, "function"), f"missing: {kind} asks the function itself"
        elif name not in streams:
            yield ("sources", name, "function"), "missing: name a function, or have a mapping read this source"


def _servers(address: SourceAddress, data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cluster's brokers, sorted: what tells one cluster from another."""
    if address.is_inline:
        return tuple(sorted(address.connection.split(",")))
    written = table(table(data, "connections"), address.connection).get("bootstrap_servers")
    servers = [server for server in written if isinstance(server, str)] if isinstance(written, list) else []
    return tuple(sorted(servers)) or (address.connection,)


def _topic(address: SourceAddress, data: Mapping[str, Any]) -> tuple[object, ...] | None:
    return (_servers(address, data), address.name) if address.kind == "kafka" else None


def _stream(address: SourceAddress, data: Mapping[str, Any]) -> tuple[object, ...]:
    return _topic(address, data) or (address.kind, address.connection, address.arn or address.name)

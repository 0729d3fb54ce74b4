"""Turns a production file into one that touches no broker (`bridge run --local`): every pull source embedded."""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from bridge.config.tree import table, tables, text
from bridge.core.function import ACCOUNT_DEFAULT, REGION_DEFAULT, function_arn
from bridge.core.mapping import LOCAL_FORMATS, SourceAddress, parse_source
from bridge.core.outcome import LOCAL

_OF_BROKERS: Final = (
    "consumer_group_id", "group_instance_id", "session_timeout_s", "isolation_level", "allow_remote", "connection",
)  # fmt: skip
_NO_BROKER: Final = "mqtt://localhost"
_Place: TypeAlias = tuple[str, str, str]
"""Kind, connection (or, for an ARN, what is before its resource) and name of a stream."""


def without_clusters(data: Mapping[str, Any], *, remote: bool = False) -> dict[str, Any]:
    """Return the tree with nothing left of its connections but their ARNs, which shape events.

    Before variables and secrets are looked up: on the machine where a file is tried there are none for production.

    Args:
        data: the file's tree.
        remote: functions elsewhere are invoked all the same: keep the connections to AWS, if there are such functions.
    """
    aws = _to_aws(data) if remote else {}
    if not remote and isinstance(sources := data.get("sources"), dict):
        data = {**data, "sources": {name: _without_broker(source) for name, source in sources.items()}}
    kept = {
        name: {"event_source_arn": connection["event_source_arn"]} if "event_source_arn" in connection else {}
        for name, connection in tables(data, "connections", broken=True)
    } | aws
    return {**data, "connections": kept} if "connections" in data else dict(data)


def _without_broker(source: Any) -> Any:
    """Return a push source without what only its broker asks for: MQTT's is not asked, `bridge put` gives it events."""
    if not isinstance(source, dict) or source.get("type") != "mqtt":
        return source
    kept = {key: value for key, value in source.items() if key not in ("username", "password", "tls", "insecure")}
    # A variable of production's is not set where the file is tried.
    return kept | {"url": _NO_BROKER} if "${" in text(source, "url") else kept


def _to_aws(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the connections that functions elsewhere may be reached by."""
    if not any("arn" in function for _, function in tables(data, "functions")):
        return {}
    return {name: made for name, made in tables(data, "connections") if made.get("type") == "aws"}


def localised(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree, variables in place, with every topic and stream read from an embedded one of its name.

    Failed records go to the local dead letters, functions tell only each other of how events ended, connections are
    gone, and so is what only a broker understands. A topic of the same name on a second cluster becomes `NAME.2`: its
    records must not mix with the first one's; so does a Kinesis stream that is named like a topic. What cannot be read
    stays as it is, for the mistakes.
    """
    streams: dict[_Place, str] = {}
    for _, mapping in tables(data, "mappings"):
        address = _address(mapping)
        if address is not None and address.kind == "local":
            streams[_place(address)] = address.name
    mappings = {
        name: _localised(mapping, table(data, "connections"), streams) if isinstance(mapping, dict) else mapping
        for name, mapping in table(data, "mappings").items()
    }
    rest = {key: value for key, value in data.items() if key not in ("connections", "logs")}
    if kept := _to_aws(data):
        rest["connections"] = kept
    if isinstance(roles := data.get("roles"), dict):  # nobody is asked for them, and none is assumed
        rest["roles"] = {key: value for key, value in roles.items() if key != "connection"}
    if isinstance(data.get("functions"), dict):
        rest["functions"] = {name: _untold(function, data) for name, function in data["functions"].items()}
    return {**rest, "mappings": mappings} if isinstance(data.get("mappings"), dict) else rest


def _untold(function: Any, data: Mapping[str, Any]) -> Any:
    """Return a function whose records go nowhere but to functions of this file."""
    if not isinstance(function, dict):
        return function
    region, account = text(data, "region", REGION_DEFAULT), text(data, "account", ACCOUNT_DEFAULT)
    here = {function_arn(name, region=region, account=account) for name, _ in tables(data, "functions")}
    gone = {"dead_letter_config"} if "arn" in function and _to_aws(data) else {"dead_letter_config", "connection"}
    found = {key: value for key, value in function.items() if key not in gone}
    if isinstance(invoke := found.get("event_invoke"), dict):
        found["event_invoke"] = {
            key: value
            for key, value in invoke.items()
            if key not in ("on_success", "on_failure") or value == LOCAL or _plain(value) in here
        }
    return found


def _plain(target: Any) -> str:
    """Return a function's ARN without its qualifier."""
    return ":".join(target.split(":")[:7]) if isinstance(target, str) else ""


def _localised(
    mapping: Mapping[str, Any], connections: Mapping[str, Any], streams: dict[_Place, str]
) -> dict[str, Any]:
    found = dict(mapping)
    if text(mapping, "on_failure").startswith(("kafka://", "arn:")):
        del found["on_failure"]
    address = _address(mapping)
    if address is None or address.kind not in LOCAL_FORMATS:
        return found
    arn = text(mapping, "event_source_arn") or text(table(connections, address.connection), "event_source_arn")
    gone = (*_OF_BROKERS, "archive") if address.kind == "sqs" else _OF_BROKERS  # what is put is in the journal already
    found = {key: value for key, value in found.items() if key not in gone}
    found["source"] = f"local://{_name(_place(address), streams)}?as={address.kind}"
    arn = arn or address.arn
    return {**found, "event_source_arn": arn} if arn else found


def _name(place: _Place, streams: dict[_Place, str]) -> str:
    """Return the name of a stream's stand-in: its own, numbered where another's has it already."""
    if place not in streams:
        taken, name, number = set(streams.values()), place[-1], 2
        while name in taken:
            name, number = f"{place[-1]}.{number}", number + 1
        streams[place] = name
    return streams[place]


def _place(address: SourceAddress) -> _Place:
    return address.kind, ":".join(address.arn.split(":")[:5]) or address.connection, address.name


def _address(mapping: Mapping[str, Any]) -> SourceAddress | None:
    """Return a mapping's source; None where it cannot be read."""
    try:
        return parse_source(text(mapping, "source"))
    except ValueError:
        return None

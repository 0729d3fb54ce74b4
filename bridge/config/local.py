"""Turns a production file into one that touches no broker (`bridge run --local`): every pull source embedded."""

from collections.abc import Mapping
from typing import Any, Final

from bridge.config.tree import table, tables, text
from bridge.core.mapping import parse_source

_OF_BROKERS: Final = (
    "consumer_group_id", "group_instance_id", "session_timeout_s", "isolation_level", "allow_remote",
)  # fmt: skip


def without_clusters(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree with nothing left of its connections but their ARNs, which shape events.

    Before variables and secrets are looked up: on the machine where a file is tried there are none for production.
    """
    kept = {
        name: {"event_source_arn": connection["event_source_arn"]} if "event_source_arn" in connection else {}
        for name, connection in tables(data, "connections", broken=True)
    }
    return {**data, "connections": kept} if "connections" in data else dict(data)


def localised(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree, variables in place, with every topic read from an embedded stream of the topic's name.

    Failed records go to the local dead letters, connections are gone, and so is what only a broker understands.
    A topic of the same name on a second cluster becomes `NAME.2`: its records must not mix with the first one's.
    What cannot be read stays as it is, for the mistakes.
    """
    streams: dict[tuple[str, str], str] = {}
    for _, mapping in tables(data, "mappings"):
        cluster, topic = _stream(mapping)
        if cluster == "":
            streams["", topic] = topic
    mappings = {
        name: _localised(mapping, table(data, "connections"), streams) if isinstance(mapping, dict) else mapping
        for name, mapping in table(data, "mappings").items()
    }
    rest = {key: value for key, value in data.items() if key != "connections"}
    return {**rest, "mappings": mappings} if isinstance(data.get("mappings"), dict) else rest


def _localised(
    mapping: Mapping[str, Any], connections: Mapping[str, Any], streams: dict[tuple[str, str], str]
) -> dict[str, Any]:
    found = dict(mapping)
    if text(mapping, "on_failure").startswith("kafka://"):
        del found["on_failure"]
    cluster, topic = _stream(mapping)
    if not cluster:
        return found
    arn = text(mapping, "event_source_arn") or text(table(connections, cluster), "event_source_arn")
    found = {key: value for key, value in found.items() if key not in _OF_BROKERS}
    found["source"] = f"local://{_name(cluster, topic, streams)}?as=kafka"
    return {**found, "event_source_arn": arn} if arn else found


def _name(cluster: str, topic: str, streams: dict[tuple[str, str], str]) -> str:
    """Return the name of a topic's stream: the topic's own, numbered where another cluster's has it already."""
    if (cluster, topic) not in streams:
        taken, name, number = set(streams.values()), topic, 2
        while name in taken:
            name, number = f"{topic}.{number}", number + 1
        streams[cluster, topic] = name
    return streams[cluster, topic]


def _stream(mapping: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return (cluster, topic); the cluster is empty for an embedded stream, None where there is neither."""
    try:
        address = parse_source(text(mapping, "source"))
    except ValueError:
        return None, ""
    if address.kind == "kafka":
        return address.connection, address.name
    return ("" if address.kind == "local" else None), address.name

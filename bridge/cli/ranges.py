"""The part of a mapping's stream that `bridge replay` is about: by time, by position, by an on-failure record."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import reduce
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import orjson

from bridge.cli import output
from bridge.cli.arguments import complete_letter, complete_mapping, complete_shard
from bridge.cli.client import Client, segment
from bridge.cli.failures import Misused

Command = TypeVar("Command", bound=Callable[..., Any])
_PLACE: Final = re.compile(r"(?:(?P<shard>[^:,\s]+):)?(?P<position>[0-9]{1,128})\Z")
_BATCH_INFO: Final = "BatchInfo"
"""How the member ends that names the failed records: KafkaBatchInfo, BridgeBatchInfo."""
_FILE_MAX_BYTES: Final = 16 * 1024 * 1024
_OF_STREAMS: Final = ("shards", "key", "first", "last", "range_file", "dead_letter")
_OF_EVENTS: Final = {
    "source": "--source",
    "function": "--function",
    "failed": "--failed",
    "ids": "--id",
    "no_order": "--no-order",
}
_NAMES: Final = {"shards": "--shard", "range_file": "--range", "dead_letter": "--from-dead-letter"}


def range_options(command: Command) -> Command:
    """Add --mapping and what goes with it."""
    options = (
        click.option(
            "--mapping",
            metavar="NAME",
            help="Records of this event source mapping's stream (Kafka, Kinesis, …), read apart: its marks stay.",
            shell_complete=complete_mapping,
        ),
        click.option(
            "--shard",
            "shards",
            multiple=True,
            metavar="SHARD",
            help="Only this one, `orders-0`; may be repeated.",
            shell_complete=complete_shard,
        ),
        click.option("--key", metavar="KEY", help="Only records of this key."),
        click.option(
            "--first",
            multiple=True,
            metavar="[SHARD:]POSITION",
            help="From this position (offset, sequence number) on.",
        ),
        click.option("--last", multiple=True, metavar="[SHARD:]POSITION", help="Up to, and including, this position."),
        click.option(
            "--range",
            "range_file",
            metavar="FILE|-",
            help="What an on-failure record names: its KafkaBatchInfo, KinesisBatchInfo… says which records failed.",
        ),
        click.option(
            "--from-dead-letter",
            "dead_letter",
            metavar="ID",
            help="What a dead letter of a mapping names, read anew from its stream.",
            shell_complete=complete_letter,
        ),
    )
    return reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


def check_range(chosen: Mapping[str, Any]) -> None:
    """Refuse what does not go together, as a usage error."""
    given = [name for name in _OF_STREAMS if chosen[name]]
    if chosen["range_file"] and chosen["dead_letter"]:
        raise click.UsageError("--range and --from-dead-letter both say which records: choose one")
    by_record = next((name for name in ("range_file", "dead_letter") if chosen[name]), None)
    doubled = [name for name in ("shards", "first", "last") if chosen[name]]
    if by_record and doubled:
        raise click.UsageError(f"{_option(by_record)} says which records: {_option(doubled[0])} does not go with it")
    if chosen["mapping"] is None and not chosen["dead_letter"]:
        if given:
            raise click.UsageError(f"{_option(given[0])} is for records of a stream: say which with --mapping")
        return
    for name, option in _OF_EVENTS.items():
        if chosen[name]:
            raise click.UsageError(f"{option} is for stored events; it does not go with {_stream_option(chosen)}")


def _option(name: str) -> str:
    return _NAMES.get(name, f"--{name}")


def _stream_option(chosen: Mapping[str, Any]) -> str:
    return "--mapping" if chosen["mapping"] is not None else "--from-dead-letter"


def selected_range(client: Client, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return `mapping`, `shards`, `key`, `first` and `last` as the api takes them; empty for stored events.

    Raises:
        Misused: the on-failure record names no records.
        Failed: there is no such dead letter.
    """
    mapping, shards = chosen["mapping"], list(chosen["shards"])
    first: dict[str, str] = {}
    last: dict[str, str] = {}
    if chosen["dead_letter"]:
        letter = client.get(f"/dlq/{segment(chosen['dead_letter'])}")
        if not letter.get("mapping"):
            raise Misused(
                f"dead letter {output.short(letter['id'])} is of no mapping: redrive it, or replay it by --id"
            )
        if mapping not in (None, letter["mapping"]):
            raise Misused(f"dead letter {output.short(letter['id'])} is of mapping {letter['mapping']}, not {mapping}")
        mapping = letter["mapping"]
        shards, first, last = _named(letter.get("outcome"), what="the dead letter")
    elif chosen["range_file"]:
        shards, first, last = _named(_read(chosen["range_file"]), what=chosen["range_file"])
    elif mapping is None:
        return {}
    else:
        first = _places(chosen["first"], shards, "--first")
        last = _places(chosen["last"], shards, "--last")
    found = {"mapping": mapping, "shards": shards, "key": chosen["key"], "first": first, "last": last}
    return {name: value for name, value in found.items() if value}


def _places(texts: Sequence[str], shards: Sequence[str], option: str) -> dict[str, str]:
    """Return positions by shard; one without a shard is that of every `--shard`."""
    places: dict[str, str] = {}
    for text in texts:
        match = _PLACE.match(text)
        if match is None:
            raise click.BadParameter("must be SHARD:POSITION, or a position beside --shard", param_hint=option)
        named = [match["shard"]] if match["shard"] else shards
        if not named:
            raise click.BadParameter(f"of which shard? Write SHARD:{text}, or name one with --shard", param_hint=option)
        for shard in named:
            if shard in places:
                raise click.BadParameter(f"{shard} is given twice", param_hint=option)
            places[shard] = match["position"]
    return places


def _read(name: str) -> Any:
    try:
        # standard input stays open: whether somebody is there to be asked is told by it
        with nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb") as file:
            text = file.read(_FILE_MAX_BYTES)
        return orjson.loads(text)
    except OSError as error:
        raise Misused(f"{name}: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise Misused(f"{name}: is not JSON: {error}") from error


def _named(record: Any, *, what: str) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Return the shard and the first and last position that an on-failure record names (semantics 3.10)."""
    if isinstance(record, dict) and isinstance(record.get("outcome"), dict):
        record = record["outcome"]  # what `bridge dlq show --json` printed
    infos = [info for name, info in record.items() if name.endswith(_BATCH_INFO)] if isinstance(record, dict) else []
    if not infos or not isinstance(infos[0], dict):
        raise Misused(f"{what}: is no on-failure record: it has no Kafka{_BATCH_INFO}")
    info = infos[0]
    kafka = info.get("recordInfo")
    if isinstance(kafka, dict):
        shard, first, last = kafka.get("topic-partition"), kafka.get("offset"), kafka.get("lastOffset")
    else:
        shard, first, last = info.get("shardId"), info.get("startSequenceNumber"), info.get("endSequenceNumber")
    texts = [str(place) for place in (first, last)]
    if not isinstance(shard, str) or not all(re.fullmatch("[0-9]{1,128}", text) for text in texts):
        raise Misused(
            f"{what}: does not say which records (AWS's own names no partition): use --shard, --first and --last"
        )
    return [shard], {shard: texts[0]}, {shard: texts[1]}


def stated_range(counted: Mapping[str, Any], selection: Mapping[str, Any], to: str | None) -> str:
    """Return `12 records of orders (orders-0 8, orders-1 4)`, and where they go to."""
    text = f"{output.records(counted['count'])} of {selection['mapping']}"
    if counted["upper_bound"]:
        text = f"at most {text}"
    elif counted["shards"]:
        text += " (" + ", ".join(f"{shard} {records:,}" for shard, records in counted["shards"].items()) + ")"
    if counted["gone"]:
        text += f", {counted['gone']:,} gone by retention"
    functions = ", ".join(counted["functions"])
    return f"{text} to {to or functions}"


def export_query(chosen: Mapping[str, Any], selection: Mapping[str, Any], limit: int | None) -> dict[str, Any]:
    """Return the query of `GET /mappings/NAME/records`."""
    query: dict[str, Any] = {name: chosen[name] for name in ("since", "until", "where")}
    query |= {"key": selection.get("key"), "limit": limit}
    for name in ("first", "last"):
        query[name] = ",".join(f"{shard}:{at}" for shard, at in selection.get(name, {}).items()) or None
    query["shards"] = ",".join(selection.get("shards", ())) or None
    return query

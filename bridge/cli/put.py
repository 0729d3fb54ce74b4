"""`bridge put`: records for an embedded stream, events for a push source; from a file, a pipe or the command line."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import click

from bridge.cli import output
from bridge.cli.arguments import Moment, complete_put, json_option, rate_option
from bridge.cli.client import Client, refusal, segment
from bridge.cli.failures import Failed, Misused
from bridge.cli.locate import Options, connect
from bridge.cli.put_events import EventSender, Request
from bridge.cli.put_input import opened, progress, values, whole
from bridge.cli.put_records import RecordSender, maker
from bridge.core.mapping import SourceAddress, parse_source

_STREAM: Final = "embedded stream"
_OF: Final[Mapping[str, frozenset[str]]] = {
    "--key": frozenset({_STREAM}),
    "--records": frozenset({_STREAM}),
    "--method": frozenset({"webhook"}),
    "--header": frozenset({"webhook"}),
    "--query": frozenset({"webhook"}),
    "--topic": frozenset({"mqtt"}),
    "--whole": frozenset({"webhook", "mqtt"}),
    "--at": frozenset({"schedule"}),
}
"""What an option is for: an embedded stream, or a source of these types."""
_WORDS: Final[Mapping[str, str]] = {
    _STREAM: "an embedded stream",
    "webhook": "a webhook",
    "mqtt": "an MQTT source",
    "schedule": "a schedule",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """What NAME names: an embedded stream, or a push source."""

    name: str
    kind: str
    """`embedded stream`, or a source's type."""
    address: SourceAddress | None = None
    """Of an embedded stream."""


@click.command("put")
@click.argument("name", shell_complete=complete_put)
@click.argument("data", metavar="[FILE|-|JSON]", required=False)
@click.option("--mapping", "as_mapping", is_flag=True, help="NAME is a mapping; needed where a source has it too.")
@click.option("--source", "as_source", is_flag=True, help="NAME is a source; needed where a mapping has it too.")
@click.option(
    "--key",
    metavar="FIELD",
    help="The key is this field of the value: id, user.id. Of a DynamoDB stream: the item's key, pk or pk,sk; else id.",
)
@click.option(
    "--records", "as_records", is_flag=True, help="Each line is a record: key, value, headers; or DynamoDB's own."
)
@click.option("--method", metavar="WORD", help="Of the requests to a webhook; else POST, or the first that it takes.")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="Of a webhook; may be repeated.")
@click.option("--query", metavar="TEXT", help="Of a webhook: page=2&size=10.")
@click.option("--topic", metavar="TOPIC", help="Of the messages of an MQTT source.")
@click.option("--at", type=Moment(), metavar="TIME", help="When a schedule ticks; else now.")
@click.option("--whole", is_flag=True, help="All of the input is one body: text, an array, bytes.")
@rate_option
@json_option
@click.pass_context
def put_command(context: click.Context, /, name: str, data: str | None, **options: Any) -> int:
    """Put records into the embedded stream that the mapping NAME reads, or events into the push source NAME.

    A line is a record; a JSON array is a record an element; any other JSON document is one record. A source takes
    events as its senders would send them, in its own format, without a signature; a schedule ticks.

    \b
    bridge put orders '{"id": 7}'
    bridge generate-event kafka --records --count 10 | bridge put orders - --records
    bridge put hook '{"ref": "main"}' --header 'X-GitHub-Event: push'
    bridge put sensors '{"t": 21.5}' --topic plant/3/temperature
    bridge put nightly --at '2026-03-01 10:00'
    """  # noqa: D301 - the mark of click is the character
    given = {
        "--key": options["key"],
        "--records": options["as_records"],
        "--method": options["method"],
        "--header": options["headers"],
        "--query": options["query"],
        "--topic": options["topic"],
        "--at": options["at"],
        "--whole": options["whole"],
    }
    if options["key"] is not None and options["as_records"]:
        raise click.UsageError("--key reads a field of the value; with --records the lines have their keys")
    client = connect(Options.of(context))
    target = _target(client, name, as_mapping=options["as_mapping"], as_source=options["as_source"])
    for option, value in given.items():
        if value not in (None, False, ()) and target.kind not in _OF[option]:
            wanted = " or ".join(_WORDS[kind] for kind in sorted(_OF[option]))
            raise click.UsageError(f"{option} is for {wanted}; {target.name} is {_WORDS[target.kind]}")
    if (data is None) != (target.kind == "schedule"):
        what = "takes no data: its event is the tick's" if data is not None else "needs data: FILE, - or JSON"
        raise click.UsageError(f"{target.name} is {_WORDS[target.kind]}, which {what}")
    if target.address is not None:
        return _put_records(client, target, data or "", options)
    return _put_events(client, target, data, options)


# --- what it goes to -----------------------------------------------------------------------------------------------
def _target(client: Client, name: str, *, as_mapping: bool, as_source: bool) -> _Target:
    """Return what a name means: never one of two things by chance."""
    if as_mapping and as_source:
        raise click.UsageError("--mapping or --source, not both")
    mapping = None if as_source else _one(client, "mappings", name)
    source = None if as_mapping else _one(client, "sources", name)
    if mapping is None and source is None:
        raise Misused(_unknown(client, name))
    reads = "" if mapping is None else str(mapping["source"])
    address = parse_source(reads) if reads else None
    if source is not None and (address is None or address.kind not in ("local", "push") or reads == name):
        return _Target(name=name, kind=str(source["type"]))
    if source is not None:
        raise Misused(f"{name} is both a mapping, which reads {reads}, and a source: add --mapping or --source")
    assert address is not None
    if address.kind == "local":
        return _Target(name=name, kind=_STREAM, address=address)
    if address.kind == "push" and (read := _one(client, "sources", reads)) is not None:
        return _Target(name=reads, kind=str(read["type"]))
    if address.kind == "push":
        raise Misused(f"{name} reads what is sent to the source {reads}, which does not run")
    raise Misused(f"{name} reads {reads}, no embedded stream; `bridge run --local FILE` makes it one")


def _one(client: Client, path: str, name: str) -> dict[str, Any] | None:
    reply = client.raw("GET", f"/{path}/{segment(name)}", refuse=False)
    if reply.status == 404:
        return None
    if reply.status >= 400:
        raise refusal(reply)
    found: dict[str, Any] = json.loads(reply.body)
    return found


def _unknown(client: Client, name: str) -> str:
    # A mapping and the source that it reads may have one name.
    known = dict.fromkeys(
        str(item["name"])
        for path in ("mappings", "sources")
        for item in client.get(f"/{path}", {"quick": True} if path == "mappings" else None)[path]
    )
    return f"no mapping or source {name[:100]}; known are {', '.join(known) or 'none'}"


# --- putting -------------------------------------------------------------------------------------------------------
def _put_records(client: Client, target: _Target, data: str, options: Mapping[str, Any]) -> int:
    assert target.address is not None
    stream, is_table = target.address.name, target.address.format == "dynamodb"
    with opened(data) as (file, size), progress(size) as show:
        sender = RecordSender(client, stream, rate=options["rate"], show=show)
        make = maker(options["key"], as_records=options["as_records"], is_table=is_table)
        try:
            for line in values(file):
                if line is None:
                    sender.flush()
                else:
                    sender.add(make(line[0]), line[1])
            sender.flush()
        except KeyboardInterrupt:
            output.note("")
            output.note(f"stopped; {output.records(sender.count)} went into local://{stream}")
            return 130
        except Failed as error:
            raise type(error)(f"{error.message}; {output.records(sender.count)} went into local://{stream}") from error
    if options["as_json"]:
        output.document({"mapping": target.name, "stream": stream, "records": sender.count, "last": sender.last})
    else:
        click.echo(f"{output.records(sender.count)} put into local://{stream}")
    return 0


def _put_events(client: Client, target: _Target, data: str | None, options: Mapping[str, Any]) -> int:
    request = Request(
        method=options["method"] or "",
        query=options["query"] or "",
        headers=tuple(_header(header) for header in options["headers"]),
        topic=options["topic"] or "",
        at=options["at"],
    )
    read = whole if options["whole"] else values
    # A text that is no file is the body itself where all of it is one.
    with opened(data, is_text=options["whole"]) as (file, size), progress(size) as show:
        sender = EventSender(client, target.name, request, rate=options["rate"], show=show, as_json=options["as_json"])
        try:
            if data is None:
                sender.add(b"", 0)
            else:
                for line in read(file):
                    if line is None:
                        sender.flush()
                    else:
                        sender.add(*line)
            sender.flush()
        except KeyboardInterrupt:
            output.note("")
            output.note(f"stopped; {output.events(sender.count)} went into {target.name}")
            return 130
        except Failed as error:
            if sender.count:
                raise type(error)(f"{error.message}; {output.events(sender.count)} went into {target.name}") from error
            raise
    if not sender.count and not sender.has_failed:
        output.note(f"the input holds no event; {target.name} got none")
    return 1 if sender.has_failed else 0


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.BadParameter(f"{text[:100]} is no NAME:VALUE", param_hint="--header")
    return name.strip(), value.strip()

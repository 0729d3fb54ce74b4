"""`bridge filter`: say why an event matches a filter pattern, or does not."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from bridge.cli import output
from bridge.cli.arguments import json_option
from bridge.cli.failures import Misused
from bridge.core.stream import RecordFormat
from bridge.events.records import EventRecord, NotARecord, event_records, key_and_data
from bridge.pipeline.criteria import compile_criteria
from bridge.pipeline.filters import Explanation, FieldReport, Pattern, PatternInvalid, compile_pattern

_INPUT_MAX_BYTES: Final = 64 * 1024 * 1024
_DATA_NAMES: Final = {"value": "kafka", "data": "kinesis", "body": "sqs"}

Explain = Callable[[EventRecord], Explanation]


@click.command("filter")
@click.argument("pattern", metavar="PATTERN|@FILE|-")
@click.option(
    "--event",
    "event_file",
    required=True,
    type=click.Path(allow_dash=True, dir_okay=False),
    metavar="FILE|-",
    help="The event as JSON; - for standard input. Of an event with records each record is judged.",
)
@click.option(
    "--source",
    type=click.Choice([each.value for each in RecordFormat]),
    help="Read the record's data as a mapping of this source does; else as its eventSource says, or as it is.",
)
@json_option
def filter_command(pattern: str, event_file: str, source: str | None, as_json: bool) -> int:  # noqa: FBT001 - click's signature
    """Say why an event matches PATTERN, or does not, field by field.

    Exit code: 0 a match (of several records: one of them at least), 1 none, 2 an invalid pattern or no event.
    """
    if pattern == "-" and event_file == "-":
        raise click.UsageError("PATTERN and --event cannot both be standard input.")
    judge = _Judge(_pattern_text(pattern))
    judge.check(RecordFormat(source) if source else None)
    event = _event(event_file)
    found = event_records(event)
    records = [EventRecord("", event, None)] if found is None else found
    if source:
        records = [record._replace(format=RecordFormat(source)) for record in records]
    told = [(record, judge.explain(record)) for record in records]
    if as_json:
        output.lines(_as_json(record, each) for record, each in told)
    else:
        _show(told)
    return 0 if any(each.matched for _, each in told) else 1


class _Judge:
    """One pattern, compiled for the sources that the records turn out to be of."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._explain: dict[RecordFormat | None, Explain] = {}

    def check(self, record_format: RecordFormat | None) -> None:
        """Refuse an invalid pattern before anything is read."""
        self._compiled(record_format)

    def explain(self, record: EventRecord) -> Explanation:
        """Return why a record matches or not."""
        return self._compiled(record.format)(record)

    def _compiled(self, record_format: RecordFormat | None) -> Explain:
        if record_format not in self._explain:
            try:
                self._explain[record_format] = self._compile(record_format)
            except PatternInvalid as error:
                raise Misused(f"invalid filter pattern: {error}") from error
        return self._explain[record_format]

    def _compile(self, record_format: RecordFormat | None) -> Explain:
        if record_format is None:
            pattern = compile_pattern(self._text)
            return lambda record: _explain_as_it_is(pattern, record.document)
        criteria = compile_criteria([self._text], format=record_format)

        def explain(record: EventRecord) -> Explanation:
            try:
                key, value = key_and_data(record.document, record_format)
            except NotARecord as error:
                place = f"{record.place}: " if record.place else ""
                raise Misused(f"{place}not a record of {record_format}: {error}") from error
            return criteria.explain(key=key, value=value, document=lambda: record.document)

        return explain


def _explain_as_it_is(pattern: Pattern, event: Any) -> Explanation:
    told = pattern.explain(event)
    if told.matched or told.note or not isinstance(event, dict):
        return told
    for name, source in _DATA_NAMES.items():
        if pattern.looks_into(name) and isinstance(event.get(name), str):
            note = f"`{name}` is text in this event; a mapping reads it as JSON: --source {source}"
            return Explanation(matched=False, fields=told.fields, note=note)
    return told


# --- reading --------------------------------------------------------------------------------------


def _pattern_text(argument: str) -> str:
    if argument != "-" and not argument.startswith("@"):
        return argument
    raw = _read(argument if argument == "-" else argument[1:])
    try:
        return raw.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise Misused(f"invalid filter pattern: it is not UTF-8 (byte {error.start})") from error


def _event(file: str) -> Any:
    raw = _read(file)
    name = "standard input" if file == "-" else file
    try:
        return json.loads(raw)
    except UnicodeDecodeError as error:
        raise Misused(f"{name}: not UTF-8") from error
    except ValueError as error:
        raise Misused(f"{name}: not JSON: {error}") from error
    except RecursionError as error:
        raise Misused(f"{name}: nested too deeply") from error


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read(_INPUT_MAX_BYTES)
    try:
        with Path(file).open("rb") as opened:
            return opened.read(_INPUT_MAX_BYTES)
    except OSError as error:
        raise Misused(f"{file}: {error.strerror}") from error


# --- showing --------------------------------------------------------------------------------------


def _as_json(record: EventRecord, told: Explanation) -> dict[str, Any]:
    return {
        "record": record.place,
        "matched": told.matched,
        "note": told.note,
        "fields": [
            {
                "alternative": field.alternative,
                "path": field.path,
                "matched": field.matched,
                "wanted": field.wanted,
                "found": list(field.found),
                "note": field.note,
            }
            for field in told.fields
        ],
    }


def _show(told: list[tuple[EventRecord, Explanation]]) -> None:
    for number, (record, each) in enumerate(told):
        if number:
            click.echo()
        verdict = click.style("match", fg="green") if each.matched else click.style("no match", fg="red")
        click.echo(f"{click.style(output.paint(record.place), bold=True)}  {verdict}" if record.place else verdict)
        _show_fields(each.fields)
        if each.note:
            output.block(each.note)
    if not told:
        click.echo("the event has no records")
    elif len(told) > 1:
        click.echo(f"\n{sum(each.matched for _, each in told)} of {len(told)} records match")


def _show_fields(fields: tuple[FieldReport, ...]) -> None:
    several = any(field.alternative for field in fields)
    columns = (*(("ALTERNATIVE",) if several else ()), "", "FIELD", "WANTED", "FOUND")
    rows = []
    for field in fields:
        verdict = output.styled("yes", "green") if field.matched else output.styled("no", "red")
        found = field.note or ", ".join(field.found) or "nothing"
        rows.append((*((field.alternative + 1,) if several else ()), verdict, field.path, field.wanted, found))
    if rows:
        output.table(columns, rows)

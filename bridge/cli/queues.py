"""`bridge dlq list|redrive sqs://CONNECTION/QUEUE`: dead-letter queues of SQS."""

import time
from collections.abc import Mapping
from typing import Any, Final

import click

from bridge.cli import jobs, output
from bridge.cli.client import Client
from bridge.cli.failures import Failed, Misused

_COLUMNS: Final = ("ID", "SENT", "TRIES", "GROUP", "REQUEST", "ERROR", "BODY")
_BODY_CHARS: Final = 60
_POLL_S: Final = 1.0
_ENDED: Final = frozenset({"COMPLETED", "CANCELLED", "FAILED"})
_BATCH: Final = 10
_RATE_MAX: Final = 500
_EMPTY_MAX: Final = 3
"""Receives that bring nothing in a row: what is left is hidden."""


def is_queue(text: str) -> bool:
    """Tell whether a dead-letter queue of SQS is meant, not an id."""
    return text.startswith(("sqs://", "arn:"))


def refuse_options(chosen: Mapping[str, Any], *, but: tuple[str, ...] = ()) -> None:
    """Refuse what selects among the local dead letters."""
    given = [name for name, value in chosen.items() if value and name not in but]
    if given:
        option = given[0].replace("_", "-")
        raise click.UsageError(f"--{option} is for the local dead letters; it does not go with a queue of SQS")


def list_queue(client: Client, queue: str, *, limit: int, as_json: bool) -> None:
    """Print a queue and some of its messages, which stay in it."""
    found = client.get("/queues", {"queue": queue, "limit": min(limit, 100)})
    if as_json:
        output.document(found)
        return
    output.fields([
        ("queue", found["arn"]),
        ("messages", _counts(found)),
        ("of queues", _of(found)),
    ])  # fmt: skip
    if found["messages"]:
        click.echo()
        output.table(_COLUMNS, [_row(message) for message in found["messages"]], right=("TRIES",))
        output.note("they stay in the queue; each look counts as a receive")


def _counts(found: Mapping[str, Any]) -> str:
    names = {"visible": found["visible"], "in flight": found["in_flight"], "delayed": found["delayed"]}
    return "about " + ", ".join(f"{'?' if n is None else format(n, ',')} {name}" for name, n in names.items())


def _of(found: Mapping[str, Any]) -> str:
    if found["sources"] is None:
        return "not known"
    return ", ".join(_names(found)) or "none: a function's or a topic's dead letters"


def _names(found: Mapping[str, Any]) -> list[str]:
    return [url.rpartition("/")[2] for url in found["sources"] or ()]


def _row(message: Mapping[str, Any]) -> list[object]:
    attributes = message["attributes"] or {}
    error = " ".join(attributes.get(name, "") for name in ("ErrorCode", "ErrorMessage")).strip()
    return [
        output.short(message["id"]),
        output.when(message["sent_at"]),
        message["receive_count"],
        message["group"],
        output.short(attributes.get("RequestID", "")),
        error[:200],
        message["body"][:_BODY_CHARS],
    ]


def redrive_queue(
    client: Client, queue: str, *, function: str | None, rate: float | None, dry_run: bool, yes: bool, as_json: bool
) -> int:
    """Send a queue's messages on: by SQS back to where they came from, or each to a function; returns the exit code.

    Raises:
        Misused: no queue has it as its dead-letter queue, and no function was named.
    """
    found = client.get("/queues", {"queue": queue, "limit": 0})
    count = found["visible"] or 0
    if function is None and found["sources"] == []:
        raise Misused(
            f"{queue}: no queue's redrive policy names it, so SQS cannot move its messages; "
            "say which function gets them: --function NAME"
        )
    where = f"to function {function}" if function else f"back to {', '.join(_names(found)) or 'where they came from'}"
    text = f"about {count:,} message{'' if count == 1 else 's'} of {found['arn']} {where}"
    if dry_run:
        if as_json:
            output.document({"count": count, "sources": found["sources"], "function": function})
        else:
            click.echo(f"{text}; nothing was sent")
        return 0
    if count == 0:
        output.note("no messages to redrive")
        return 0
    if function is None and rate is not None and not (rate == int(rate) and 1 <= rate <= _RATE_MAX):
        raise click.UsageError(f"--rate must be a whole number, 1..{_RATE_MAX}: SQS moves them")
    jobs.confirm(f"Redrive {text}?", yes=yes)
    if function is None:
        return _moved(client, queue, rate=rate, as_json=as_json)
    return _handed_over(client, queue, function=function, count=count, rate=rate, as_json=as_json)


def _moved(client: Client, queue: str, *, rate: float | None, as_json: bool) -> int:
    body: dict[str, Any] = {"queue": queue} | ({} if rate is None else {"rate": int(rate)})
    task = client.post("/queues/move", body)["task"]
    try:
        while task is not None and task["status"] not in _ENDED:
            _show(f"{task['moved']:,} of {task['to_move'] or '?'} moved")
            time.sleep(_POLL_S)
            task = client.get("/queues/move", {"queue": queue})["task"]
    except KeyboardInterrupt:
        output.note("\nthe move goes on in SQS")
        return 130
    if as_json:
        output.document(task)
    elif task is not None:
        click.echo(
            f"{task['status'].lower()}: {task['moved']:,} moved" + (f"; {task['reason']}" * bool(task["reason"]))
        )
    return 0 if task is not None and task["status"] == "COMPLETED" else 1


def _handed_over(client: Client, queue: str, *, function: str, count: int, rate: float | None, as_json: bool) -> int:
    succeeded = failed = empty = 0
    errors: list[str] = []
    began = time.monotonic()
    size = _BATCH if rate is None else max(1, min(_BATCH, int(rate)))
    try:
        while succeeded + failed < count and empty < _EMPTY_MAX:
            if rate is not None:
                time.sleep(max(0.0, began + (succeeded + failed) / rate - time.monotonic()))
            limit = min(size, count - succeeded - failed)
            done = client.post("/queues/hand-over", {"queue": queue, "function": function, "limit": limit})
            succeeded, failed = succeeded + done["succeeded"], failed + done["failed"]
            errors += done["errors"]
            empty = 0 if done["succeeded"] + done["failed"] else empty + 1
            _show(f"{succeeded + failed:,} of about {count:,}")
    except KeyboardInterrupt:
        output.note("\nstopped; what was not handled stays in the queue")
        return 130
    except Failed:
        output.note(f"{succeeded:,} redriven, {failed:,} failed before that")
        raise
    if as_json:
        output.document({"succeeded": succeeded, "failed": failed, "errors": errors})
    else:
        click.echo(f"{succeeded:,} redriven, {failed:,} failed")
        for error in errors[:10]:
            output.note(error)
    return 0 if not failed else 1


def _show(text: str) -> None:
    """Show progress on a terminal, in place."""
    if output.is_tty():
        click.echo(f"\r{text}   ", nl=False, err=True)

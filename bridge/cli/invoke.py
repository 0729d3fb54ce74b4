"""The verbs about one function: invoke, logs."""

import base64
import sys
from pathlib import Path
from typing import Final

import click

from bridge.cli import output
from bridge.cli.arguments import complete_function, json_option
from bridge.cli.client import INVOKE_TIMEOUT_S, refusal, segment
from bridge.cli.locate import Options, connect
from bridge.util.text import escape

_PAYLOAD_MAX_BYTES: Final = 6 * 1024 * 1024 + 1
"""One more than any invocation takes: the daemon says so in its own words."""


@click.command("invoke")
@click.argument("function", metavar="FUNCTION[:QUALIFIER]", shell_complete=complete_function)
@click.option(
    "--payload", default="{}", metavar="JSON|@FILE|-", help="The event: JSON, @file, or - for standard input."
)
@click.option(
    "--type",
    "kind",
    type=click.Choice(["RequestResponse", "Event", "DryRun"], case_sensitive=False),
    default="RequestResponse",
    show_default=True,
    help="RequestResponse waits for the answer, Event stores it and returns, DryRun only checks.",
)
@click.option(
    "--log", "with_log", is_flag=True, help="Also print the last 4 KB of the invocation's log, on standard error."
)
@click.pass_context
def invoke_command(context: click.Context, function: str, payload: str, kind: str, with_log: bool) -> int:  # noqa: FBT001 - click's signature
    """Invoke FUNCTION and print what it returned."""
    event = _payload(payload)
    client = connect(Options.of(context))
    headers = {"content-type": "application/json", "x-amz-invocation-type": kind}
    if with_log and kind == "RequestResponse":
        headers["x-amz-log-type"] = "Tail"
    reply = client.raw(
        "POST", f"/invoke/{segment(function)}", body=event, headers=headers, timeout_s=INVOKE_TIMEOUT_S, refuse=False
    )
    if reply.status >= 400:
        raise refusal(reply, see="bridge functions list")
    if tail := reply.headers.get("x-amz-log-result"):
        for line in base64.b64decode(tail).decode("utf-8", "replace").splitlines():
            output.note(line.replace("\t", "  "))
    request_id = reply.headers.get("x-amzn-requestid", "")
    if kind == "Event":
        click.echo(request_id)
        output.note(f"stored; see what becomes of it: bridge events show {output.short(request_id)}")
        return 0
    if kind == "DryRun":
        output.note("OK  it exists and may be invoked; nothing ran")
        return 0
    _print_answer(reply.body)
    if error := reply.headers.get("x-amz-function-error"):
        output.note(f"bridge: function error ({error})")
        return 1
    return 0


def _payload(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read(_PAYLOAD_MAX_BYTES)
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    try:
        with Path(text[1:]).open("rb") as file:
            return file.read(_PAYLOAD_MAX_BYTES)
    except OSError as error:
        raise click.BadParameter(f"{text[1:]}: {error.strerror}", param_hint="--payload") from error


def _print_answer(body: bytes) -> None:
    """Write the answer's bytes as they are to a pipe; on a terminal without anything that could steer it."""
    if output.is_tty():
        click.echo(escape(body.decode("utf-8", "replace")))
    else:
        click.echo(body)


@click.command("logs")
@click.argument("function", metavar="FUNCTION|GROUP", shell_complete=complete_function)
@click.option("--stream", metavar="NAME", help="Only streams whose name begins so: 2026/01/31/[$LATEST]…")
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines as they come.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0, 10_000),
    default=100,
    show_default=True,
    metavar="N",
    help="How many of the last lines to begin with.",
)
@json_option
@click.pass_context
def logs_command(
    context: click.Context,
    /,
    function: str,
    stream: str | None,
    follow: bool,  # noqa: FBT001 - click's signature
    lines: int,
    as_json: bool,  # noqa: FBT001 - click's signature
) -> None:
    """Show what FUNCTION printed, START, END and REPORT included, or all functions of a log group."""
    client = connect(Options.of(context))
    path, query = f"/logs/{segment(function)}", {"lines": lines, "follow": follow, "stream": stream}
    try:
        read = client.lines if as_json else client.stream
        for raw in read(path, query, see="bridge functions list"):
            if isinstance(raw, bytes):
                click.echo(raw)
            else:
                click.echo(escape(str(raw["line"]).replace("\t", "  ")))
    except KeyboardInterrupt:
        return

"""`bridge doctor`: what is in force and what is wrong, with a daemon or on a state folder that none has."""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.cli import output
from bridge.cli.arguments import json_option
from bridge.cli.failures import Misused, NoDaemon
from bridge.cli.locate import Options, config_path, connect, state_folder
from bridge.core.function import REGION_DEFAULT
from bridge.core.mapping import parse_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.config.settings import Settings
    from bridge.core.connection import AwsConnection, KafkaConnection
    from bridge.sources.pull.kafka_reach import Reach

_PROBED_PORT = 8581
_REACH_S = 5.0
"""How long each cluster has to answer; they are asked at once."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    name: str
    ok: bool
    detail: str

    def as_dict(self) -> dict[str, object]:
        """Return it for JSON."""
        return {"name": self.name, "ok": self.ok, "detail": self.detail}


@click.command("doctor")
@click.option("--repair", is_flag=True, help="Move damaged files aside, so that a daemon can start. None may run.")
@json_option
@click.pass_context
def doctor_command(context: click.Context, repair: bool, as_json: bool) -> int:  # noqa: FBT001 - click's signature
    """Say what is in force, and what is wrong; exit code 1 if anything is.

    Asks the daemon; where none runs, looks at the state folder itself and says what would be in force.
    """
    options = Options.of(context)
    try:
        facts = connect(options).get("/doctor")["facts"]
    except NoDaemon as error:
        if options.url is not None:
            raise
        output.note(f"{error.message}; looking at the folder itself")
        state = state_folder(options)
        findings = [*_without_daemon(state, repair=repair), *_configured(options, state)]
    else:
        if repair:
            raise Misused("a daemon runs on this state folder: stop it first, then `bridge doctor --repair`")
        findings = [Finding(fact["name"], fact["ok"], fact["detail"]) for fact in facts]
    if as_json:
        output.lines(finding.as_dict() for finding in findings)
    else:
        output.table(
            ("", "WHAT", "FOUND"),
            [[_mark(finding), finding.name, finding.detail] for finding in findings],
        )
    return 0 if all(finding.ok for finding in findings) else 1


def _mark(finding: Finding) -> Any:
    return output.styled("ok", "green") if finding.ok else output.styled("!!", "red")


def _without_daemon(state: Path, *, repair: bool) -> list[Finding]:
    from bridge.util import logs

    logs.configure(level="error", style="console")  # what the parts say about themselves is no finding
    if not state.is_dir():
        what = "is not a folder" if state.exists() else "is not there yet; the first `bridge run` makes it"
        return [Finding("state folder", not state.exists(), f"{state} {what}"), *_sandbox()]
    with _taken(state) as busy:
        if busy:
            return [Finding("state folder", False, busy)]
        return [
            Finding("state folder", True, f"{state}, {_free(state)} free"),
            *_database(state / "p0", repair=repair),
            *_made(state / "shared"),
            *_journal(state / "p0" / "journal", repair=repair),
            *_sandbox(),
        ]


# --- connections and mappings ---------------------------------------------------------------------------------------
def _configured(options: Options, state: Path) -> list[Finding]:
    """Try each connection of the file, and say of each mapping what a daemon would meet."""
    from bridge.config.connections import connection_values
    from bridge.config.load import load
    from bridge.config.mistakes import ConfigErrors
    from bridge.store.repair import paused_mappings

    path = config_path(options)
    if path is None and not Path("bridge.toml").exists():
        return []
    try:
        settings = load(path).settings
    except ConfigErrors as error:
        more = f" (and {len(error.mistakes) - 1} more: `bridge check`)" if len(error.mistakes) > 1 else ""
        return [Finding("configuration", False, f"{error.mistakes[0]}{more}")]
    reached = asyncio.run(_reached(connection_values(settings)))
    paused = paused_mappings(state / "p0")
    found = [
        Finding(f"connection {name}", not reach.problem, reach.problem or "reached and let in")
        for name, reach in sorted(reached.items())
    ]
    found += asyncio.run(_aws(settings))
    found += asyncio.run(_brokers(settings))
    for name, mapping in sorted(settings.mappings.items()):
        text = f"no daemon runs it{'; paused' if name in paused else ''}; reads {mapping.source} for {mapping.function}"
        places = [mapping.source] + ([mapping.on_failure] if mapping.on_failure.startswith("kafka://") else [])
        problems = [problem for place in places if (problem := _problem(place, reached))]
        text = ": ".join([text, *dict.fromkeys(problems)])
        found.append(Finding(f"mapping {name}", not problems, text))
    return found


async def _brokers(settings: "Settings") -> list[Finding]:
    """Try the broker of each MQTT source."""
    from bridge.config.mqtt import MqttSettings

    sources = {name: each for name, each in settings.sources.items() if isinstance(each, MqttSettings)}
    if not sources:
        return []
    from bridge.daemon.mqtt import mqtt_address
    from bridge.sources.push.mqtt_reach import mqtt_problem

    problems = await asyncio.gather(*(mqtt_problem(mqtt_address(source)) for _, source in sorted(sources.items())))
    return [
        Finding(
            f"source {name}", not problem, f"no daemon runs it; {source.url} {problem or 'is reached and lets us in'}"
        )
        for (name, source), problem in zip(sorted(sources.items()), problems, strict=True)
    ]


def _problem(place: str, reached: "Mapping[str, Reach]") -> str:
    """Return why a topic cannot be read or written; empty when it can, or is none."""
    address = parse_source(place)
    reach = reached.get(address.connection)
    if reach is None:
        return ""
    if reach.problem:
        return f"connection {address.connection} {reach.problem}"
    return "" if address.name in reach.topics else f"topic {address.name} is not there, or not shown to us"


async def _reached(connections: "Mapping[str, KafkaConnection]") -> "dict[str, Reach]":
    if not connections:
        return {}
    from bridge.sources.pull.kafka_reach import reach

    tries = [reach(connection, deadline_s=_REACH_S) for connection in connections.values()]
    return dict(zip(connections, await asyncio.gather(*tries), strict=True))


async def _aws(settings: "Settings") -> list[Finding]:
    """Say of each connection to AWS whom we are there, and of each remote function where it is; none is invoked."""
    from bridge.config.connections import AwsConnectionSettings, aws_connection
    from bridge.config.functions import function_specs

    found = []
    for name, connection in settings.connections.items():
        if isinstance(connection, AwsConnectionSettings):
            found.append(await _credentials(f"connection {name}", aws_connection(settings, name=name)))
    for spec in function_specs(settings):
        if spec.remote is not None:
            by = f" by connection {spec.remote.connection.name}" if spec.remote.connection.name else ""
            found.append(Finding(f"function {spec.name}", True, f"{spec.remote.arn}{by}"))
    return found


async def _credentials(what: str, connection: "AwsConnection") -> Finding:
    from bridge.aws.credentials import ConnectionCredentials, CredentialsMissing
    from bridge.util.clocks import SystemClock

    try:
        found = await ConnectionCredentials(connection, clock=SystemClock()).get_frozen_credentials()
    except CredentialsMissing as error:
        return Finding(what, False, str(error))
    return Finding(what, True, f"credentials of access key {found.access_key}, for {connection.region}")


@contextlib.contextmanager
def _taken(state: Path) -> Iterator[str]:
    """Hold the folder's lock, so that no daemon starts meanwhile; yield why it cannot be had, or nothing."""
    from bridge.core.errors import StoreError
    from bridge.store.folder import StateFolder

    folder = StateFolder(state)
    try:
        folder.open()
    except StoreError as error:
        yield str(error)
        return
    try:
        yield ""
    finally:
        folder.close()


def _free(state: Path) -> str:
    found = os.statvfs(state)
    return output.size(found.f_bavail * found.f_frsize)


def _database(partition: Path, *, repair: bool) -> Iterator[Finding]:
    from bridge.core.errors import StoreError
    from bridge.store.repair import check_state, repair_state

    name = "parked events and dead letters"
    try:
        problem = check_state(partition)
        if not problem:
            yield Finding(name, True, "sound")
        elif not repair:
            yield Finding(name, False, problem)
        elif (done := repair_state(partition)) is not None:
            kept = ", ".join(f"{count} {table.replace('_', ' ')}" for table, count in done.rows.items())
            yield Finding(name, True, f"damaged; kept what could be read ({kept}); the old file is {done.aside}")
    except StoreError as error:
        yield Finding(name, False, str(error))


def _made(shared: Path) -> Iterator[Finding]:
    """Look at what Lambda's API made."""
    from bridge.core.errors import StoreError
    from bridge.store.inspection import inspect_catalog

    name = "functions of Lambda's API"
    try:
        found = inspect_catalog(shared / "catalog.db", shared / "packages")
    except (StoreError, OSError) as error:
        yield Finding(name, False, str(error))
        return
    if found is None:
        return
    packages = output.counted(found.packages, "package")
    text = f"{output.counted(found.functions, 'function')}, {packages}, every hash checked"
    if found.orphans:
        text += f"; {found.orphans} that nothing names, which a daemon deletes"
    yield Finding(name, True, text) if not found.problems else Finding(name, False, "; ".join(found.problems))


# --- journal --------------------------------------------------------------------------------------------------------
def _journal(folder: Path, *, repair: bool) -> Iterator[Finding]:
    paths = sorted(folder.glob("*.seg"))
    damaged = 0
    for path in paths:
        problem = _segment_problem(path, is_last=path == paths[-1])
        if not problem:
            continue
        damaged += 1
        if repair:
            aside = _move_aside(path, is_last=path == paths[-1])
            yield Finding("journal", False, f"{problem}; moved to {aside}: its events are out of the daemon's sight")
        else:
            yield Finding("journal", False, f"{problem}; --repair moves it aside, with every event in it")
    if not damaged:
        size = sum(path.stat().st_size for path in paths)
        yield Finding(
            "journal", True, f"{output.counted(len(paths), 'segment')}, {output.size(size)}, every frame checked"
        )


def _segment_problem(path: Path, *, is_last: bool) -> str:
    """Read every frame of a segment; return what is wrong, or nothing. A torn tail of the last one is no damage."""
    from bridge.core.errors import StoreCorrupt
    from bridge.journal.layout import read_mark, recover

    try:
        number = int(path.stem, 16)
        found = recover(path, number=number, floor=read_mark(path.parent, number) if is_last else None)
    except StoreCorrupt as error:
        return str(error).removesuffix("; run `bridge doctor`")
    except (OSError, ValueError) as error:
        return f"{path.name} cannot be read ({error})"
    return "" if is_last or not found.torn else f"{path.name} ends in a damaged frame at byte {found.seal.end}"


def _move_aside(path: Path, *, is_last: bool) -> Path:
    """Rename a segment and its index out of the journal's sight. Its number is never used again.

    Outcomes are kept by position: a new event at an old position would pass for one that is done. So an empty
    segment of the next number stands where the last one was.
    """
    from bridge.store.folder import sync_folder

    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    if is_last:
        path.with_name(f"{int(path.stem, 16) + 1:08x}.seg").touch(mode=0o600)
    path.rename(aside)
    with contextlib.suppress(FileNotFoundError):
        path.with_suffix(".idx").rename(aside.with_suffix(aside.suffix + ".idx"))
    sync_folder(path.parent)
    return aside


# --- sandbox --------------------------------------------------------------------------------------------------------
def _sandbox() -> list[Finding]:
    """Start one worker that only reports what confines it."""
    from bridge.core.errors import BridgeError

    try:
        with tempfile.TemporaryDirectory(prefix="bridge-doctor-") as folder:
            return asyncio.run(_probe(Path(folder)))
    except (BridgeError, OSError) as error:
        return [Finding("workers", False, f"no worker can be started: {error}")]


async def _probe(folder: Path) -> list[Finding]:
    from bridge.runtime import confined
    from bridge.runtime.logs import FunctionLogs
    from bridge.runtime.starter import Confinement, Starter
    from bridge.util.clocks import SystemClock

    logs = FunctionLogs(folder / "logs")
    starter = Starter(
        Confinement(
            run_folder=folder / "run",
            sandbox="auto",
            packages=None,
            deny_paths=(folder,),
            code_store=None,
            deny_ports=(_PROBED_PORT,),
            region=REGION_DEFAULT,
        ),
        logs=logs,
        clock=SystemClock(),
        on_report=lambda _report: None,
        on_end=lambda: None,
    )
    try:
        await starter.open()
        facts = [(fact.mechanism, fact.in_force, fact.detail) for fact in starter.confined.facts]
        return [Finding(*finding) for finding in confined.findings(starter.confined.level, facts)]
    finally:
        await starter.close()
        logs.close()

"""`bridge keys`: the keys that seal variables of functions; asks the daemon, or works on its files when none runs."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from bridge.cli import output
from bridge.cli.arguments import json_option
from bridge.cli.client import Client
from bridge.cli.failures import Failed, Misused, NoDaemon
from bridge.cli.locate import Options, connect, state_folder

if TYPE_CHECKING:
    from bridge.config.settings import Settings
    from bridge.registry.rotation import Rotation

    Work = Callable[[Settings, Path], Coroutine[Any, Any, dict[str, Any]]]


@click.group("keys")
def keys_command() -> None:
    """Look at the keys that seal variables of functions that Lambda's API made; rotate them.

    With a daemon they ask it; without one they take the state folder, and read the configuration
    for [api] key_file, account and region.
    """


@keys_command.command("show")
@json_option
@click.pass_context
def show_command(context: click.Context, as_json: bool) -> None:  # noqa: FBT001 - click's signature
    """Show every key, how old it is, and how many values it holds; the newest first."""
    found = _asked(context, lambda client: client.get("/keys"), _show)
    if as_json:
        output.document(found)
        return
    if not found["keys"]:
        output.note("nothing was ever sealed: there is no key file" + (f" {found['file']}" if found["file"] else ""))
    else:
        output.table(
            ("KEY", "ID", "MADE", "VALUES"),
            [[key["name"], key["id"], output.when(key["made_at"]), key["values"]] for key in found["keys"]],
            right=("VALUES",),
        )
    if sum(key["name"] == found["keys"][0]["name"] for key in found["keys"]) > 1:
        output.note("a rotation was cut short: `bridge keys rotate` finishes it")
    _tell_unreadable(found["unreadable"])


@keys_command.command("rotate")
@json_option
@click.pass_context
def rotate_command(context: click.Context, as_json: bool) -> None:  # noqa: FBT001 - click's signature
    """Make a new key and wrap every value's own key by it; the old key goes when that is done.

    Values are not encrypted again, functions run on. Killed half-way, both keys are in the file and
    everything can be opened: the next rotation goes on. Keys of AWS KMS are rotated by KMS.
    """
    done = _asked(context, lambda client: client.post("/keys/rotate"), _rotate)
    if as_json:
        output.document(done)
        return
    if not done["id"]:
        output.note("nothing was ever sealed: there is no key to rotate")
        return
    count = f"{done['rewrapped']:,} value{'s' if done['rewrapped'] != 1 else ''}"
    click.echo(f"{'finished the rotation to' if done['resumed'] else 'new key'} {done['id']}: {count} re-wrapped")
    if done["dropped"]:
        output.note(
            "the old key is gone: a copy of the state folder from before needs a copy of the key file from then"
        )
    _tell_unreadable(done["unreadable"])


def _asked(context: click.Context, ask: Callable[[Client], Any], work: "Work") -> dict[str, Any]:
    """Return what the daemon says, or, where none runs and no other was named, what its files come to."""
    options = Options.of(context)
    try:
        found: dict[str, Any] = ask(connect(options))
    except NoDaemon:
        if options.url is not None:
            raise
        return _without_daemon(context, work)
    return found


def _tell_unreadable(count: int) -> None:
    if count:
        output.note(
            f"bridge: {count} value{'s' if count != 1 else ''} that no key opens (another key file, account or region, "
            "or damage): old keys stay until the functions have their variables anew, or are deleted"
        )


# --- without a daemon -----------------------------------------------------------------------------------------------
def _without_daemon(context: click.Context, work: "Work") -> dict[str, Any]:
    """Do it on the files, which no daemon has meanwhile."""
    from bridge.cli.service import load_settings
    from bridge.core.errors import SealBroken, StoreBusy, StoreError
    from bridge.util import logs

    logs.configure(level="error", style="console")
    state = state_folder(Options.of(context))
    if not state.is_dir():
        raise Failed(f"there is no state folder {state}, and no daemon: nothing is sealed")
    settings = load_settings(context, None).settings
    try:
        with _taken(state):
            return asyncio.run(work(settings, state))
    except StoreBusy as error:
        raise Misused(str(error)) from error
    except (StoreError, SealBroken) as error:
        raise Failed(str(error)) from error


@contextlib.contextmanager
def _taken(state: Path) -> Iterator[None]:
    from bridge.store.folder import StateFolder

    folder = StateFolder(state)
    folder.open()
    try:
        yield
    finally:
        folder.close()


async def _show(settings: "Settings", state: Path) -> dict[str, Any]:
    from bridge.registry.rotation import holders

    async with _Files(settings, state) as files:
        found, unreadable = holders(files.seal, files.functions, arn_of=files.arn)
        return {"file": str(files.seal.path), "keys": [asdict(each) for each in found], "unreadable": unreadable}


async def _rotate(settings: "Settings", state: Path) -> dict[str, Any]:
    from bridge.registry.rotation import rotate

    async with _Files(settings, state) as files:
        done: Rotation = await rotate(files.seal, files.functions, arn_of=files.arn, save=files.save)
        return done.as_dict()


class _Files:
    """The key file and the database of made functions, open."""

    def __init__(self, settings: "Settings", state: Path) -> None:
        from bridge.config.access import key_file
        from bridge.registry.secrets import Seal

        self.seal = Seal(key_file(settings))
        self._settings = settings
        self._path = state / "shared" / "catalog.db"
        self._store: Any = None
        self.functions: list[Any] = []

    def arn(self, name: str) -> str:
        from bridge.core.function import function_arn

        return function_arn(name, region=self._settings.region, account=self._settings.account)

    async def save(self, before: Any, after: Any) -> None:
        await self._store.save(after.key, before=before, after=after)

    async def __aenter__(self) -> Self:
        from bridge.store.functions import SqliteFunctions

        if self._path.exists():
            self._store = await SqliteFunctions.open(self._path)
            functions, _ = await self._store.load()
            self.functions = list(functions.values())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._store is not None:
            await self._store.close()

"""Edited code, edited layers and an edited file count at once, while the daemon runs with `--watch`."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Final

import structlog

from bridge.api.app import ReloadResult
from bridge.config.watch import identity, watch
from bridge.core.errors import BridgeError
from bridge.core.ports import Clock
from bridge.daemon.composition import Parts, Spawn
from bridge.registry.virtualenvs import site_packages

log = structlog.get_logger("bridge.daemon")

_STANDS_S: Final = 1.0
_LAYER: Final = "layer:"
"""Before the path of a layer, where names of functions stand: they hold no colon."""


class Edits:
    """Watches what the file in force names.

    Args:
        parts: what is told.
        config_path: the file; None: there is none.
        spawn: starts a task whose failure is seen.
        clock: the daemon's.
        reload: takes the file anew; if it does, it calls `start` for the new folders.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        config_path: Path | None,
        spawn: Spawn,
        clock: Clock,
        reload: Callable[[], Awaitable[ReloadResult]],
    ) -> None:
        self._parts = parts
        self._config_path = config_path
        self._spawn = spawn
        self._clock = clock
        self._reload = reload
        self._watching: asyncio.Task[None] | None = None
        self._read: tuple[int, ...] | None = None
        """What stood at the file's path when it was last read; None: nobody knows."""

    def reading(self) -> None:
        """The file is read now: what is saved later, is for the next reload."""
        self._read = self._stands()

    def _stands(self) -> tuple[int, ...] | None:
        return None if self._config_path is None else identity(self._config_path)

    def start(self) -> None:
        """Watch from now on, in the place of what was watched before."""
        self.stop()
        self._watching = self._spawn(self._watch(), "watch")

    def stop(self) -> None:
        """Watch no more; twice is fine. A watch whose own reload this is ends with it by itself."""
        if self._watching is not None and self._watching is not asyncio.current_task():
            self._watching.cancel()

    async def _watch(self) -> None:
        """Use edited code from the next invocation on; an edited file is a reload."""
        folders = self._folders()
        edits_of = watch(folders, self._config_path, marks=self._virtualenvs())
        async with aclosing(edits_of) as edits:  # type: ignore[type-var]
            self._spawn(self._look_once(folders, self._read), "watch-first-look")
            async for edited in edits:
                for name in sorted(edited.functions):
                    await self._refresh(name)
                if edited.config:
                    result = await self._reload()
                    if result.ok:
                        return  # the reload has started a watch over the new folders

    def _folders(self) -> dict[str, Path]:
        """Return what is watched: code by the function's name, layers by their path behind `_LAYER`."""
        functions = self._parts.catalog.functions()
        local = [each.latest for each in functions if each.latest.remote is None and not each.is_made]
        layers = {layer.written for version in local for layer in version.layers if layer.is_path}
        return {version.name: Path(version.code) for version in local} | {_LAYER + path: Path(path) for path in layers}

    def _virtualenvs(self) -> dict[str, Path]:
        """Return where packages come and go with virtual environments, by the function's name."""
        local = [each.latest for each in self._parts.catalog.functions()]
        return {
            version.name: Path(site_packages(version.interpreter))
            for version in local
            if version.interpreter is not None and version.interpreter.virtualenv
        }

    async def _look_once(self, names: Iterable[str], read: tuple[int, ...] | None) -> None:
        """Look at all code, and the file, again once the watch stands: an edit before that is told by nobody.

        So is one while the file's own reload ran, since that starts the watch: `read` is what was read.
        """
        await self._clock.sleep(_STANDS_S)
        if read is not None and read == self._read and self._stands() not in (read, None):
            await self._reload()
        for name in names:
            if name in self._parts.catalog or name.startswith(_LAYER):
                await self._refresh(name)

    async def _refresh(self, name: str) -> None:
        try:
            if name.startswith(_LAYER):
                path = name.removeprefix(_LAYER)
                changed = await self._parts.file_layers.apply(self._parts.catalog, only=path)
            else:
                is_other = await asyncio.to_thread(self._parts.catalog.refresh, name)
                changed = frozenset({name} if is_other else ())
        except BridgeError as error:
            log.warning("function_unreadable", function=name, error=str(error))
            return
        for each in sorted(changed):
            self._parts.function_changed(each)
            log.info("function_changed", function=each)

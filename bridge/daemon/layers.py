"""Layers of functions that the file declares: versions of Lambda's API, folders and zips, merged into one /opt."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from bridge.api.awslambda.control import MadeFunctions
from bridge.api.awslambda.errors import Refused
from bridge.config.mistakes import ConfigErrors
from bridge.core.errors import BridgeError, ConfigError
from bridge.core.function import DeclaredLayer, Function, FunctionVersion
from bridge.registry.access import Caller
from bridge.registry.catalog import FunctionCatalog
from bridge.registry.packages import digest_folder, folder_size
from bridge.registry.snapshots import zip_folder
from bridge.store.packages import Package

log = structlog.get_logger("bridge.daemon")

_REMEDY: Final = "; see [functions.X] layers, then `bridge reload`"


class FileLayers:
    """Finds the layers of declared functions, and keeps their files among the packages.

    A function that lacks one does not run and says why; the others do.

    Args:
        made: the layers and packages of Lambda's API.
    """

    def __init__(self, made: MadeFunctions) -> None:
        self._made = made
        self._packed: dict[str, tuple[str, str]] = {}
        """Of folders and zips: what they were when they were packed, and the package's key."""

    async def apply(self, catalog: FunctionCatalog, *, only: str = "") -> frozenset[str]:
        """Give the functions of a catalog what their layers come to; return the names of those that changed.

        Args:
            catalog: whose declared functions are looked at.
            only: those alone that have this layer, as it is written; empty: all.
        """
        known: dict[str, DeclaredLayer] = {}
        changed = set()
        async with self._made.changing():
            for function in _layered(catalog):
                version = function.latest
                if only and all(layer.written != only for layer in version.layers):
                    continue
                layers, opt, trouble = await self._merged(version, known)
                done = await asyncio.to_thread(
                    catalog.put_layers, function.name, layers=layers, opt=opt, trouble=trouble
                )
                if done:
                    changed.add(function.name)
        return frozenset(changed)

    def check(self, new: FunctionCatalog, *, current: FunctionCatalog) -> None:
        """Refuse a file by which a function would lose its layers; what lacks them already may go on lacking them.

        Raises:
            ConfigErrors: a line for each.
        """
        mistakes = []
        for function in _layered(new):
            text, before = function.latest.unrunnable, current.declared(function.name)
            if text and (before is None or before.latest.unrunnable != text):
                mistakes.append(f"functions.{function.name}.layers: {text.partition(': ')[2].removesuffix(_REMEDY)}")
        if mistakes:
            raise ConfigErrors(mistakes)

    async def _merged(
        self, version: FunctionVersion, known: dict[str, DeclaredLayer]
    ) -> tuple[list[DeclaredLayer], str, str]:
        """Return a version's layers with their packages, the folder they are merged into, and why there is none."""
        try:
            layers = [known.get(each.written) or await self._found(each) for each in version.layers]
            known |= {layer.written: layer for layer in layers}
            keys = [layer.package for layer in layers]
            await self._made.check_layers(await asyncio.to_thread(folder_size, version.code), keys)
            return layers, await asyncio.to_thread(self._made.opt_of, keys), ""
        except (Refused, BridgeError) as error:
            trouble = f"InvalidZipFileException: {error}{_REMEDY}"
        return [DeclaredLayer(written=layer.written) for layer in version.layers], "", trouble

    async def _found(self, layer: DeclaredLayer) -> DeclaredLayer:
        """Return a layer with its package. Raises ConfigError, which shows no folder of this machine to callers."""
        try:
            if layer.is_path:
                package = await self._pack(layer.written)
                return replace(layer, package=package.key, size=package.size)
            home = self._made.home
            caller = Caller(account=home.account, region=home.region)
            (version,) = self._made.layers.resolve([layer.written], caller)
            await asyncio.to_thread(self._made.code_of, version.package)  # it is not lost
            return replace(layer, package=version.package, size=version.code_size)
        except (Refused, BridgeError, OSError) as error:
            shown = Path(layer.written).name if layer.is_path else layer.written
            reason = (error.strerror or "unreadable").lower() if isinstance(error, OSError) else str(error)
            reason = reason.replace(layer.written, shown)
            raise ConfigError(reason if shown in reason else f"layer {shown}: {reason}") from error

    async def _pack(self, written: str) -> Package:
        """Return the package of a folder or a zip; one that has not changed since the last time is not read again.

        Raises:
            BridgeError, OSError, Refused: unreadable, too large, no zip, or it cannot be kept.
        """
        identity = await asyncio.to_thread(_identity, written)
        before, key = self._packed.get(written, ("", ""))
        if before == identity and key in await asyncio.to_thread(self._made.packages.keys):
            return await asyncio.to_thread(self._made.packages.get, key)
        package = await self._add(Path(written))
        self._packed[written] = identity, package.key
        log.info("layer_packed", layer=written, package=package.key)
        return package

    async def _add(self, path: Path) -> Package:
        if not await asyncio.to_thread(path.is_dir):
            return await self._made.add_package(path)
        file = self._made.packages.temporary()
        try:
            await asyncio.to_thread(zip_folder, path, file)
            return await self._made.add_package(file)
        finally:
            await asyncio.to_thread(file.unlink, missing_ok=True)


def _layered(catalog: FunctionCatalog) -> Iterator[Function]:
    """Yield the functions that the file declares with layers, as it has them."""
    for each in catalog.functions():
        function = catalog.declared(each.name)
        if function is not None and function.latest.layers:
            yield function


def _identity(written: str) -> str:
    """Return what changes when a folder or a file does; blocking."""
    path = Path(written)
    if path.is_dir():
        return digest_folder(path)
    status = path.stat()
    return f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"

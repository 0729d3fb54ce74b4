"""The networks of functions with a VpcConfig: a namespace for each set of subnets and groups, where it can be had."""

import asyncio
import contextlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from bridge.core.errors import RuntimeUnavailable
from bridge.core.function import FunctionVersion
from bridge.core.network import NONE, VPC
from bridge.runtime import links, network
from bridge.runtime.links import Link, Links
from bridge.runtime.process import Worker

log = structlog.get_logger("bridge.runtime")

NETWORKS_MAX: Final = 256
"""Namespaces at once; beyond it those without workers go, then functions are refused one."""
MACHINE: Final = "the machine's network"
OF_THE_MACHINE: Final = {"network": network.MACHINE, "resolver": ""}
"""What a request for a worker says that stays where the zygote is."""
RESOLVERS: Final = Path("/etc/resolv.conf")
UPSTREAM: Final = Path("/run/systemd/resolve/resolv.conf")
"""Where systemd-resolved, which listens on loopback alone, keeps the resolvers that it asks itself."""


@dataclass(slots=True, kw_only=True)
class Network:
    """A namespace and the workers that are in it."""

    link: Link
    workers: set[Worker] = field(default_factory=set)

    def is_in_use(self) -> bool:
        """Tell whether a worker lives in it; forgets those that have ended."""
        self.workers = {worker for worker in self.workers if not worker.is_finished}
        return bool(self.workers)


def wants_one(version: FunctionVersion) -> bool:
    """Tell whether a version's workers are to have a network that they share with others of its VpcConfig."""
    return version.vpc is not None and version.network != NONE


class Networks:
    """Makes a namespace when its first worker starts, and takes all of them down in the end.

    Args:
        folder: of the daemon, for itself alone.
    """

    def __init__(self, folder: Path) -> None:
        self._links = Links(folder)
        self._networks: dict[str, Network] = {}
        self._lock = asyncio.Lock()
        self._is_open = False
        self._told: set[str] = set()
        self.trouble = ""
        """Why there are none; empty: there are, or nobody has asked for one yet."""

    async def open(self) -> None:
        """Take away what a killed daemon left."""
        if left := await asyncio.to_thread(self._links.clean):
            log.warning("network_leftovers", error=left)

    async def prepare(self, versions: Iterable[FunctionVersion]) -> None:
        """Find out whether they can be had, if any version wants one."""
        if any(map(wants_one, versions)):
            async with self._lock:
                await self._begin()

    async def _begin(self) -> None:
        """Make what all of them need, once; a failure counts until a restart."""
        if self._is_open or self.trouble:
            return
        self.trouble = links.missing()
        if not self.trouble:
            try:
                await asyncio.to_thread(self._links.open)
            except OSError as error:
                self.trouble = str(error)
                await asyncio.to_thread(self._links.clean)
        if self.trouble:
            self._tell(self.trouble)
        self._is_open = not self.trouble
        if self._links.is_forwarding:
            log.warning("ipv4_forwarding_switched_on", why="functions with a vpc_config", until="the daemon stops")

    async def enter(self, version: FunctionVersion, worker: Worker) -> Network | None:
        """Return the network of a worker that is about to start, made if need be; None: the machine's.

        Raises:
            RuntimeUnavailable: it cannot be had, and the function is not to run without.
        """
        if not wants_one(version):
            return None
        async with self._lock:
            try:
                found = await self._of(version)
            except OSError as error:
                if version.network == VPC:
                    raise RuntimeUnavailable(
                        f'no worker for {version.name}: network = "vpc", and its network cannot be had: {error}'
                    ) from error
                self._tell(str(error))
                return None
            found.workers.add(worker)
            return found

    async def _of(self, version: FunctionVersion) -> Network:
        await self._begin()
        if self.trouble:
            raise OSError(self.trouble)
        key = key_of(version)
        if key not in self._networks:
            await self._make_room()
            self._networks[key] = Network(link=await asyncio.to_thread(self._links.make, key))
        found = self._networks[key]
        found.is_in_use()
        return found

    async def _make_room(self) -> None:
        if len(self._networks) < NETWORKS_MAX:
            return
        for key, each in list(self._networks.items()):
            if not each.is_in_use():
                del self._networks[key]
                await asyncio.to_thread(self._links.drop, each.link)
                return
        raise OSError(f"{NETWORKS_MAX} sets of subnets and groups are in use")

    def _tell(self, trouble: str) -> None:
        if trouble not in self._told:
            self._told.add(trouble)
            log.warning("network_not_to_be_had", instead=MACHINE, why=trouble)

    def described(self, version: FunctionVersion) -> str:
        """Say which network the workers of a version have; empty: the machine's, and they want no other."""
        if version.network == NONE:
            return "none: its own loopback interface alone"
        if not wants_one(version):
            return ""
        if found := self._networks.get(key_of(version)):
            return f"of its own subnets and groups: {found.link.address} behind {found.link.interface}"
        if not self.trouble:
            return "of its own subnets and groups: made when its first worker starts"
        if version.network == VPC:
            return f'refused, as network = "vpc" cannot be had: {self.trouble}'
        return f"{MACHINE}, as its own cannot be had: {self.trouble}"

    def facts(self, versions: Iterable[FunctionVersion]) -> list[tuple[str, bool, str]]:
        """Return what is in force for those that want one, for `bridge doctor`; nothing where none does."""
        names = sorted({version.name for version in versions if wants_one(version)})
        if not names:
            return []
        listed = ", ".join(names)
        if self.trouble:
            return [("function networks", False, f"{listed}: {MACHINE}, as none can be made: {self.trouble}")]
        text = f"a namespace for each set of subnets and groups ({len(self._networks)} now): {listed}"
        return [("function networks", True, text), ("names in function networks", not resolver()[1], _resolving())]

    async def close(self) -> None:
        """Take all of it down; call it once the workers have ended. Twice is fine."""
        all_of_them, self._networks = self._networks, {}
        for each in all_of_them.values():
            await asyncio.to_thread(self._links.drop, each.link)
        if self._is_open:
            self._is_open = False
            await self.open()


def request_of(version: FunctionVersion, shared: Network | None) -> dict[str, str]:
    """Return what the request for a worker says of its network; `shared` is the one that it enters."""
    if version.network == NONE:
        return {"network": network.ALONE, "resolver": ""}
    return OF_THE_MACHINE if shared is None else {"network": network.SHARED, "resolver": resolver()[0]}


def key_of(version: FunctionVersion) -> str:
    """Return what functions share a network by."""
    assert version.vpc is not None
    return version.vpc.set_in(version.space)


# --- names ----------------------------------------------------------------------------------------------------------
def resolver() -> tuple[str, str]:
    """Return the file to be shown in the place of /etc/resolv.conf, and why names cannot be resolved; else empty."""
    if _reaches_out(RESOLVERS):
        return "", ""
    if _reaches_out(UPSTREAM):
        return str(UPSTREAM), ""
    return "", f"{RESOLVERS} names resolvers on this machine's loopback alone, which no namespace reaches"


def _resolving() -> str:
    shown, trouble = resolver()
    return trouble or f"resolved by the servers of {shown or RESOLVERS}"


def _reaches_out(path: Path) -> bool:
    """Tell whether a file names a resolver on another interface than loopback."""
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="ascii", errors="replace").splitlines():
            words = line.split()
            with contextlib.suppress(ValueError):
                if len(words) > 1 and words[0] == "nameserver" and not ipaddress.ip_address(words[1]).is_loopback:
                    return True
    return False

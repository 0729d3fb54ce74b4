"""Binds a Kafka client to the egress rules: each name is resolved here, checked, and connected to by that very address.

aiokafka opens every connection, to brokers that are named and to those that the cluster advertises, by its function
`create_conn`: ours stands in its place, and does nothing for clients that are not bound.
"""

import asyncio
import functools
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, Final, Self
from weakref import WeakKeyDictionary

import structlog

from bridge.core.egress import Egress, is_place, remedy, where
from bridge.core.errors import ConfigError

log = structlog.get_logger("bridge.streams")

RESOLVE_MAX_S: Final = 5.0
"""A name that is not resolved by then is not."""
LOOKUPS_MAX: Final = 2
"""Names of bound clients that are resolved at once, until the resolver is done with them: each takes a thread of few,
and whoever names hosts whose servers never answer would hold up every other lookup of the daemon."""
_HOST_TOLD_CHARS: Final = 100
ADDRESSES_MAX: Final = 8
"""Of one name that are tried, in the resolver's order."""


class EgressDenied(OSError):
    """A host may not be connected to: the text names it, and the setting."""


class Unresolved(EgressDenied):
    """A host has no address now, and nothing allows it by its name: another broker may do."""


class BoundId(str):
    """The client id of a bound client: aiokafka hands it to whatever opens a connection, with what binds that."""

    __slots__ = ("egress", "refused")

    def __new__(cls, client_id: str, egress: Egress) -> Self:
        """Return a client id that carries rules."""
        made = super().__new__(cls, client_id)
        made.egress = egress
        made.refused = ""
        return made

    egress: Egress
    refused: str
    """Why a connection of the client was refused last, but for names not resolved; empty: none was."""


async def permitted(egress: Egress, host: str, port: int) -> Sequence[tuple[int, str]]:
    """Return the addresses of a host that may be connected to, with their families, in the resolver's order.

    A name that no rule could allow is not resolved: whoever asks would learn of names, or tell the servers of a domain.

    Raises:
        EgressDenied: there is none.
        Unresolved: its addresses could be allowed, and it has none now.
        OSError: it is not resolved, though the rules name it.
    """
    if not is_place(host, port):
        raise EgressDenied(f"{host[:_HOST_TOLD_CHARS]!a}:{port} is no address of a broker")
    is_address = _is_address(host)
    if not is_address and not egress.may_match(host, port):
        raise EgressDenied(f"{where(host, port)} {remedy(host, port)}")
    try:
        found = [(_family(host), host)] if is_address else await _resolve(host, port)
    except (OSError, ValueError, TimeoutError) as error:
        if egress.names(host, port):
            raise OSError(f"{host}: {str(error) or f'not resolved within {RESOLVE_MAX_S:g} s'}") from error
        raise Unresolved(f"{where(host, port)} is not resolved, and {remedy(host, port)}") from error
    allowed: list[tuple[int, str]] = []
    refusals: list[str] = []
    for each in found:
        if said := egress.refusal(host, port, each[1]):
            log.debug("egress_denied", host=host, port=port, address=each[1])
            refusals.append(said)
        elif each not in allowed:
            allowed.append(each)
    if not allowed:
        raise EgressDenied(refusals[0] if refusals else f"{where(host, port)} has no address")
    return allowed[:ADDRESSES_MAX]


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _family(address: str) -> int:
    return int(socket.AF_INET6 if ":" in address else socket.AF_INET)


async def _resolve(host: str, port: int) -> Sequence[tuple[int, str]]:
    loop = asyncio.get_running_loop()
    free = _FREE.setdefault(loop, asyncio.Semaphore(LOOKUPS_MAX))
    async with asyncio.timeout(RESOLVE_MAX_S):
        await free.acquire()
        lookup = asyncio.ensure_future(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        _LOOKUPS.add(lookup)
        lookup.add_done_callback(functools.partial(_resolved, free))
        await asyncio.wait({lookup})  # a thread cannot be stopped: it goes on, and counts, whoever waits no longer
    return [(int(family), str(address[0])) for family, _, _, _, address in lookup.result()]


def _resolved(free: asyncio.Semaphore, lookup: "asyncio.Future[Any]") -> None:
    _LOOKUPS.discard(lookup)
    free.release()
    if not lookup.cancelled():
        lookup.exception()  # looked at, though nobody may wait any longer


_FREE: Final["WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]"] = WeakKeyDictionary()
"""How many lookups each event loop has left."""
_LOOKUPS: Final[set["asyncio.Future[Any]"]] = set()
"""Those under way: an event loop does not keep its tasks."""


async def check_servers(egress: Egress, servers: Sequence[str]) -> None:
    """Refuse brokers, `host:port` each, of which one may not be connected to.

    Raises:
        ConfigError: which one, and what the file needs.
    """

    async def refusal(server: str) -> str:
        host, _, port = server.rpartition(":")
        try:
            await permitted(egress, host.strip("[]"), int(port))
        except EgressDenied as error:
            return str(error)
        except OSError:  # allowed, and not there yet: the mapping says so
            pass
        return ""

    for said in await asyncio.gather(*map(refusal, servers)):
        if said:
            raise ConfigError(said)


class _CheckedLoop:
    """An event loop whose connections go to the permitted addresses of a host, and to no other."""

    def __init__(self, loop: asyncio.AbstractEventLoop, egress: Egress) -> None:
        self._loop = loop
        self._egress = egress

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(self, factory: Any, host: str, port: int, *, ssl: Any) -> Any:
        """See AbstractEventLoop.create_connection; a certificate is still the name's, not the address's."""
        failure: OSError | None = None
        for family, address in await permitted(self._egress, host, port):
            try:
                return await self._loop.create_connection(
                    factory,
                    address,
                    port,
                    ssl=ssl,
                    family=family,
                    flags=socket.AI_NUMERICHOST,
                    server_hostname=host if ssl is not None else None,
                )
            except OSError as error:
                failure = error
        assert failure is not None, "there is a permitted address"
        raise failure


def bind(client_id: str, egress: Egress) -> BoundId:
    """Return the client id by which a client of aiokafka is bound to rules."""
    import aiokafka.client as library

    if library.create_conn is not _create_conn:
        _THEIRS.append(library.create_conn)
        library.create_conn = _create_conn
    return BoundId(client_id, egress)


_THEIRS: Final[list[Any]] = []
"""aiokafka's own `create_conn`, once ours stands in its place."""


async def _create_conn(host: str, port: int, *, client_id: str, **arguments: Any) -> Any:
    if not isinstance(client_id, BoundId):
        return await _THEIRS[-1](host, port, client_id=client_id, **arguments)
    from aiokafka.conn import AIOKafkaConnection

    made = AIOKafkaConnection(host, port, client_id=client_id, **arguments)
    made._loop = _CheckedLoop(made._loop, client_id.egress)  # noqa: SLF001 - by it alone it connects
    try:
        await made.connect()
    except Unresolved:
        raise
    except EgressDenied as error:
        client_id.refused = str(error)
        raise
    return made

"""Whose word counts for where a request came from: `X-Forwarded-For` only through proxies that are trusted."""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from bridge.core.errors import ConfigError

_ADDRESSES_CACHED_MAX: Final = 4096
_HOPS_MAX: Final = 16

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class TrustedProxies:
    """Networks whose `X-Forwarded-For` is believed.

    Raises:
        ConfigError: an entry is no address or network.
    """

    def __init__(self, networks: Sequence[str] = ()) -> None:
        try:
            self._networks = [ipaddress.ip_network(network) for network in networks]
        except ValueError as error:
            raise ConfigError(f"trusted_proxies: {error}") from error
        self._is_trusted = lru_cache(maxsize=_ADDRESSES_CACHED_MAX)(self._look_up)

    def source_ip(self, peer: str, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """Return the address of the first hop, seen from us, that is not one of the proxies."""
        if not self._networks or not self._is_trusted(peer):
            return peer
        forwarded = b",".join(value for name, value in headers if name == b"x-forwarded-for")
        source = peer
        for hop in reversed(forwarded.decode("latin-1").split(",")[-_HOPS_MAX:]):
            address = _parse(hop.strip())
            if address is None:
                return source
            source = str(address)
            if not self._is_trusted(source):
                return source
        return source

    def _look_up(self, text: str) -> bool:
        address = _parse(text)
        return address is not None and any(address in network for network in self._networks)


def _parse(text: str) -> _Address | None:
    """Return an address; IPv4 in IPv6 is IPv4, a port is left out, anything else is None."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address

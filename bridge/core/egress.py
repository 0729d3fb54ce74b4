"""Where the daemon may connect for callers of Lambda's API: allowed hosts, and what is never reached (pure).

`ipaddress.is_global` is of no use here: it is true of 64:ff9b::7f00:1, which NAT64 makes loopback, and of 192.0.0.192,
where a cloud tells its machines their keys. What is not allowed is denied, and some is whatever is allowed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

ALLOW_MAX: Final = 1000
ENTRY_MAX_CHARS: Final = 300
_NEVER: Final[tuple[IpNetwork, ...]] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # this machine, as Linux has it
        "169.254.0.0/16",  # link-local: metadata of nearly every cloud, credentials of containers
        "192.0.0.0/24",  # of protocols; metadata at .192
        "100.100.100.200/32",  # metadata
        "168.63.129.16/32",  # the agent of a cloud's machines
        "224.0.0.0/4",  # many at once, or nobody
        "240.0.0.0/4",
        "::/128",
        "fe80::/10",  # link-local
        "fec0::/10",  # once the same of a site
        "fd00:ec2::/32",  # metadata at ::254, credentials at ::23
        "fd20:ce::/32",  # metadata
        "ff00::/8",
    )
)
_LAST_32_BITS: Final = tuple(
    IPv6Network(text)
    for text in (
        "::/96",  # IPv4-compatible
        "::ffff:0:0/96",  # IPv4-mapped
        "::ffff:0:0:0/96",  # IPv4-translated
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # NAT64 of a site
    )
)
"""Whatever goes to one of these ends at the IPv4 address in its end."""
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_LOOPBACK: Final = IPv6Address(1)
_6TO4: Final = IPv6Network("2002::/16")
_TEREDO: Final = IPv6Network("2001::/32")
_NAT64_OF_SITE: Final = IPv6Network("64:ff9b:1::/48")
_ENTRY: Final = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[^\[\]:]+)|(?P<bare>[0-9A-Fa-f:.]+:[0-9A-Fa-f:./]*))"
                           r"(?::(?P<port>[0-9]{1,5}))?\Z")  # fmt: skip
_WANTED: Final = (
    "must be a host name, *.NAME, an address or a network, such as 10.0.0.0/8, each with :port or without it"
)
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*\Z")
_HOST: Final = re.compile(r"[A-Za-z0-9._:%-]{1,255}\Z")
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,255}\Z")
_DENIED: Final = "is link-local, metadata or no single host: never connected to for callers of the API"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """One entry of `egress.allow`."""

    name: str = ""
    """Of a host, in lower case; `*.` before it stands for one label or more. Empty: it is a network."""
    network: IpNetwork | None = None
    port: int = 0
    """0: every port."""

    def has_name(self, host: str, port: int) -> bool:
        """Tell whether it names a host, whatever its addresses are."""
        if not self.name or self.port not in (0, port):
            return False
        return host.endswith(self.name[1:]) if self.name.startswith("*.") else host == self.name

    def has_address(self, address: IpAddress, port: int) -> bool:
        """Tell whether an address is in its network."""
        return self.network is not None and self.port in (0, port) and address in self.network

    def is_network_of(self, port: int) -> bool:
        """Tell whether it is a network, with a port."""
        return self.network is not None and self.port in (0, port)


def parse_allowed(text: str) -> Allowed:
    """Return an entry: a name, `*.` and a name, an address or a network; with `:port`, an IPv6 one in brackets.

    Raises:
        ValueError: with what to write instead, or that it is never reached.
    """
    found = _ENTRY.match(text)
    if found is None:
        raise ValueError(_WANTED)
    host, port = (found["v6"] or found["host"] or found["bare"]).lower(), int(found["port"] or 0)
    if found["port"] is not None and not 0 < port <= 65_535:
        raise ValueError("the port must be 1..65535")
    try:
        network = ip_network(host, strict=False)
    except ValueError:
        name = host.removesuffix(".")
        if found["v6"] or not _NAME.match(name) or name.rpartition(".")[2].isdigit():
            raise ValueError(_WANTED) from None
        return Allowed(name=name, port=port)
    if "/" in host and int(network.network_address) != int(ip_address(host.partition("/")[0])):
        raise ValueError(f"has bits beyond its mask; did you mean {network}?")
    if _is_all_never(network):
        raise ValueError(f"{network} {_DENIED}")
    if network.version == 6 and network.subnet_of(_MAPPED):  # compared as IPv4 addresses: it would match none
        written = _ipv4_in(network, _MAPPED.prefixlen)
        place = str(written.network_address if written.prefixlen == 32 else written)
        raise ValueError(f"is IPv4: write {where(place, port) if port else place}")
    return Allowed(network=network, port=port)


@dataclass(frozen=True, slots=True)
class Egress:
    """What `[egress]` allows; equal values allow the same."""

    allow: tuple[Allowed, ...] = ()

    def names(self, host: str, port: int) -> bool:
        """Tell whether an entry names a host: its addresses are allowed then, but for those that never are."""
        if not _HOST_NAME.match(host):  # a resolver stops at a NUL, and has its own mind of what is not ASCII
            return False
        host = host.lower().rstrip(".")
        return any(each.has_name(host, port) for each in self.allow)

    def may_match(self, host: str, port: int) -> bool:
        """Tell whether an address of a host could be allowed, before any is known."""
        return self.names(host, port) or any(each.is_network_of(port) for each in self.allow)

    def refusal(self, host: str, port: int, address: str) -> str:
        """Return why nothing may connect to an address of a host on one line, empty where it may.

        It tells the host as it is written, not the address: callers may not know what names resolve to.

        Args:
            host: as it is written.
            port: 1..65535.
            address: that it resolved to, IPv4 or IPv6.
        """
        place = where(host, port)
        try:
            found = plain(ip_address(address))
        except ValueError:
            return f"{place} is no IP address: not connected"
        if is_never(found):
            return f"{place} {_DENIED}"
        if self.names(host, port) or any(each.has_address(found, port) for each in self.allow):
            return ""
        return f"{place} {remedy(host, port)}"


NOTHING: Final = Egress()


def is_place(host: str, port: int) -> bool:
    """Tell whether these are of a kind to connect to: ASCII letters, digits and `.-_:%`, with a port of 1..65535."""
    return _HOST.match(host) is not None and 0 < port <= 65_535


def where(host: str, port: int) -> str:
    """Return `host:port`, the address of IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def remedy(host: str, port: int) -> str:
    """Return what to say of a host that nothing allows."""
    return (
        "is not allowed for callers of the API: the daemon's file needs "
        f'[egress] allow = ["{where(host, port)}"], or a [connections.X] with these bootstrap_servers'
    )


def plain(address: IpAddress) -> IpAddress:
    """Return an IPv4-mapped address as the IPv4 address that a socket connects to; any other as it is."""
    return (address.version == 6 and address.ipv4_mapped) or address


def is_never(address: IpAddress) -> bool:
    """Tell whether an address, or the one that it is translated to on its way, is never connected to."""
    return any(each in network for each in (address, *_translated(address)) for network in _NEVER)


def _is_all_never(network: IpNetwork) -> bool:
    """Tell whether each address of a network is never connected to, itself or as what it is translated to."""
    found: list[IpNetwork] = [network]
    if isinstance(network, IPv6Network):
        if _LOOPBACK not in network:
            found += [_ipv4_in(network, 96) for each in _LAST_32_BITS if network.subnet_of(each)]
        if network.subnet_of(_6TO4):
            found.append(_ipv4_in(network, _6TO4.prefixlen))
    if any(each.version == never.version and each.subnet_of(never) for each in found for never in _NEVER):  # type: ignore[arg-type]
        return True
    return network.prefixlen == network.max_prefixlen and is_never(network.network_address)


def _ipv4_in(network: IPv6Network, begin: int) -> IPv4Network:
    """Return the network that 32 bits of another are, from a bit on: all of IPv4 where they are not fixed."""
    value = int(network.network_address) >> (96 - begin) & 0xFFFFFFFF
    return IPv4Network((value, min(max(network.prefixlen - begin, 0), 32)))


def _translated(address: IpAddress) -> Iterator[IPv4Address]:
    """Yield the IPv4 addresses that an IPv6 address stands for, of every way there is."""
    if address.version == 4:
        return
    value = int(address)
    if int(address) > 1 and any(address in network for network in _LAST_32_BITS):  # ::1 is loopback, no 0.0.0.1
        yield IPv4Address(value & 0xFFFFFFFF)
    if address in _6TO4:
        yield IPv4Address(value >> 80 & 0xFFFFFFFF)
    if address in _TEREDO:
        yield IPv4Address(value >> 64 & 0xFFFFFFFF)
        yield IPv4Address(~value & 0xFFFFFFFF)
    if address in _NAT64_OF_SITE:  # RFC 6052: prefixes of 48, 56 and 64 bits skip bits 64..71
        yield IPv4Address((value >> 64 & 0xFFFF) << 16 | value >> 40 & 0xFFFF)
        yield IPv4Address((value >> 64 & 0xFF) << 24 | value >> 32 & 0xFFFFFF)
        yield IPv4Address(value >> 24 & 0xFFFFFFFF)

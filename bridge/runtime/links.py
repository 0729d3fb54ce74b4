"""Network namespaces behind this machine's address: made, ruled and taken down by `ip` and `nft`; blocking, for root.

A namespace has no name: it is held by a descriptor and by the processes in it, so the kernel takes it down, with both
ends of its link, when the daemon is killed. What can be left behind is a table of nftables and the switch of IPv4
forwarding; both are called after the folder of the daemon that made them, whose next start takes them away.
"""

import contextlib
import fcntl
import hashlib
import ipaddress
import json
import os
import shutil
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from bridge.runtime import syscalls

RANGE: Final = ipaddress.IPv4Network("198.18.0.0/15")
"""Where addresses of namespaces are from (RFC 2544: on no real network); each takes four, skipping what is routed."""
PREFIX_BITS: Final = 30
PROGRAM_MAX_S: Final = 15.0
PROGRAMS: Final = ("ip", "nft")
INSIDE: Final = "eth0"
_FORWARDING: Final = Path("/proc/sys/net/ipv4/ip_forward")
_NO_IPV6: Final = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
_PATH: Final = f"{os.defpath}:/usr/local/sbin:/usr/sbin:/sbin"
_TABLE: Final = "bridge_"
_ID_CHARS: Final = 6
"""Of an interface's name, which has 15 at most."""
_RULES: Final = """
add table inet {table}
delete table inet {table}
table inet {table} {{
  set insides {{ type ipv4_addr; }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname "{prefix}*" ct state established,related accept
    oifname "{prefix}*" reject with icmpx admin-prohibited
    iifname "{prefix}*" ip daddr {{ 169.254.0.0/16, 100.100.100.200, 192.0.0.192 }} reject with icmpx admin-prohibited
    iifname "{prefix}*" ip daddr 168.63.129.16 tcp dport != 53 reject with icmpx admin-prohibited
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "{prefix}*" ct state established,related accept
    iifname "{prefix}*" reject with icmpx admin-prohibited
  }}
  chain output {{
    type filter hook output priority filter; policy accept;
    oifname "{prefix}*" ct state established,related accept
    oifname "{prefix}*" reject with icmpx admin-prohibited
  }}
  chain outbound {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr @insides oifname != "{prefix}*" masquerade
  }}
}}
"""
"""Out, by this machine's address, to other machines; nothing in but answers; nothing from or to this machine itself.

Nor to where clouds tell their machines what they are, keys included; one of these addresses is a resolver besides.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A namespace with one way out."""

    descriptor: int
    """Holds the namespace."""
    interface: str
    """Name of the machine's end."""
    address: str
    """IPv4 address inside."""


def missing() -> str:
    """Return why namespaces with a way out cannot be had here; empty: nothing is known against it."""
    if os.geteuid() != 0:
        return "the daemon is not root"
    absent = [program for program in PROGRAMS if _found(program) is None]
    return f"{' and '.join(absent)} not found (Debian: iproute2, nftables)" if absent else ""


class Links:
    """The namespaces of one daemon and what they need of the machine.

    Args:
        folder: of the daemon, for itself alone: its name is in the names of all that is made.
    """

    def __init__(self, folder: Path) -> None:
        self._marker = folder / "network"
        """There while something may have to be taken away."""
        self._folder = folder
        self._number = 0
        self.is_forwarding = False
        """We have switched it on."""

    @property
    def id(self) -> str:
        """Six hexadecimal digits that stand for the folder."""
        found = self._folder.stat()
        text = f"{os.path.realpath(self._folder)} {found.st_dev} {found.st_ino}"
        return hashlib.sha256(text.encode()).hexdigest()[:_ID_CHARS]

    @property
    def table(self) -> str:
        """Name of the table of nftables."""
        return _TABLE + self.id

    @property
    def prefix(self) -> str:
        """How the names of the machine's ends begin."""
        return f"bv{self.id}-"

    def open(self) -> None:
        """Make the rules and have the machine forward. Raises OSError: something of it is refused."""
        self._marker.touch(mode=0o600)
        with _alone() as others:
            _tables()  # what takes it all away again asks for them: better refused now
            _run("nft", "-f", "-", text=_RULES.format(table=self.table, prefix=self.prefix))
            if _FORWARDING.read_text(encoding="ascii").strip() == "0":
                others.write("1")
                others.flush()
                try:
                    _FORWARDING.write_text("1", encoding="ascii")
                except OSError:  # read-only: there is nothing to put back
                    others.truncate(0)
                    raise
                self.is_forwarding = True

    def make(self, what: str) -> Link:
        """Make a namespace with a way out; `what` decides on its address, where that is free.

        Raises:
            OSError: something of it is refused, or no address is free.
        """
        self._number += 1
        with _alone():  # or another daemon would find the same addresses free
            network = _free_network(f"{self.id} {what}")
            outside, inside = network[1], network[2]
            link = Link(descriptor=_new_namespace(), interface=f"{self.prefix}{self._number}", address=str(inside))
            try:
                _batch(
                    f"link add {link.interface} type veth peer name {INSIDE} netns /proc/self/fd/{link.descriptor}",
                    f"addr add {outside}/{PREFIX_BITS} dev {link.interface}",
                    f"link set {link.interface} up",
                    descriptors=[link.descriptor],
                )
                _within(link.descriptor, lambda: _furnish(inside=str(inside), outside=str(outside)))
                _run("nft", "add", "element", "inet", self.table, "insides", f"{{ {inside} }}")
            except BaseException:
                self.drop(link)
                raise
        return link

    def drop(self, link: Link) -> None:
        """Take a namespace away; one that is half made, or in which processes still end, is fine."""
        with contextlib.suppress(OSError):
            _run("nft", "delete", "element", "inet", self.table, "insides", f"{{ {link.address} }}")
        with contextlib.suppress(OSError):
            _run("ip", "link", "delete", link.interface)
        os.close(link.descriptor)

    def clean(self) -> str:
        """Take away the rules, and what a killed daemon left of this folder; twice is fine.

        Returns:
            What could not be taken away; empty: nothing is left.
        """
        if not self._marker.exists():
            return ""
        try:
            for interface in Path("/sys/class/net").glob(f"{self.prefix}*"):
                _run("ip", "link", "delete", interface.name)
            self._stop_forwarding()
            self._marker.unlink(missing_ok=True)
        except OSError as error:
            return str(error)
        return ""

    def _stop_forwarding(self) -> None:
        """Put forwarding back once the last daemon that needs it goes."""
        with _alone() as others:
            if self.table in (tables := _tables()):
                _run("nft", "delete", "table", "inet", self.table)
                tables.remove(self.table)
            if not any(table.startswith(_TABLE) for table in tables):
                if others.read(1):
                    _FORWARDING.write_text("0", encoding="ascii")
                Path(others.name).unlink()


@contextlib.contextmanager
def _alone() -> Iterator[IO[str]]:
    """Keep other daemons of this network waiting; yield what they share: it holds something if one of them forwards."""
    network = Path("/proc/thread-self/ns/net").stat().st_ino
    path = Path(f"/run/bridge-network-{network}")
    while True:
        with open(path, "a+", encoding="ascii", opener=_private) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                is_there = path.stat().st_ino == os.fstat(file.fileno()).st_ino
            except FileNotFoundError:  # whoever was here before us was the last one, and took it away
                is_there = False
            if is_there:
                file.seek(0)
                yield file
                return


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _furnish(*, inside: str, outside: str) -> None:
    with contextlib.suppress(OSError):  # a kernel without it
        _NO_IPV6.write_text("1", encoding="ascii")
    _batch(
        "link set lo up",
        f"addr add {inside}/{PREFIX_BITS} dev {INSIDE}",
        f"link set {INSIDE} up",
        f"route add default via {outside}",
    )


def _free_network(what: str) -> ipaddress.IPv4Network:
    taken = _routed()
    networks = 1 << (PREFIX_BITS - RANGE.prefixlen)
    first = zlib.crc32(what.encode()) % networks
    for step in range(networks):
        start = int(RANGE.network_address) + ((first + step) % networks << 32 - PREFIX_BITS)
        network = ipaddress.IPv4Network((start, PREFIX_BITS))
        if not any(network.overlaps(other) for other in taken):
            return network
    raise OSError(f"every address of {RANGE} is routed elsewhere")


def _routed() -> list[ipaddress.IPv4Network]:
    """Return what this machine has routes to within the range, the default one aside."""
    found = []
    for route in json.loads(_run("ip", "-json", "-4", "route", "show", "table", "all") or "[]"):
        with contextlib.suppress(ValueError, KeyError):  # `default`, or no destination at all
            network = ipaddress.IPv4Network(route["dst"], strict=False)
            if network.prefixlen and network.overlaps(RANGE):
                found.append(network)
    return found


def _tables() -> list[str]:
    """Return the names of all tables of the family `inet`."""
    found = json.loads(_run("nft", "-j", "list", "tables", "inet"))["nftables"]
    return [entry["table"]["name"] for entry in found if "table" in entry]


def _new_namespace() -> int:
    def make() -> int:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return _in_own_thread(make)


def _within(descriptor: int, step: Callable[[], None]) -> None:
    def enter() -> int:
        syscalls.setns(descriptor, syscalls.CLONE_NEWNET)
        step()
        return 0

    _in_own_thread(enter)


def _in_own_thread(step: Callable[[], int]) -> int:
    """Run a step in a thread that ends after it: whatever namespace it has entered, nobody else works there."""
    results: list[int] = []
    errors: list[OSError] = []

    def run() -> None:
        try:
            results.append(step())
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if not results:
        raise errors[0] if errors else OSError("a thread ended before its time")
    return results[0]


def _batch(*commands: str, descriptors: Sequence[int] = ()) -> None:
    _run("ip", "-batch", "-", text="".join(f"{command}\n" for command in commands), descriptors=descriptors)


def _found(program: str) -> str | None:
    return shutil.which(program, path=_PATH)


def _run(program: str, *arguments: str, text: str = "", descriptors: Sequence[int] = ()) -> str:
    """Run a program and return what it writes. Raises OSError: it fails, or takes too long."""
    path = _found(program)
    if path is None:
        raise OSError(f"{program} not found")
    try:
        done = subprocess.run(
            [path, *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=PROGRAM_MAX_S,
            pass_fds=descriptors,
            env={"PATH": _PATH, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{program} did not end within {PROGRAM_MAX_S:g} s") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise OSError(f"{program}: {said[0][:200]}")
    return done.stdout

"""Who may talk to the api at all: decided before any path is looked at (a web page must not reach a local daemon)."""

import hmac
import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Final

from bridge.api.http import HttpError

_PORT: Final = re.compile(r":[0-9]{1,5}\Z")


def check_origin(headers: Mapping[str, Sequence[str]], hosts: Collection[str]) -> None:
    """Refuse what a browser sends on a web page's behalf, and names that are not ours (DNS rebinding).

    Raises:
        HttpError: 403.
    """
    given = headers.get("host", [])
    if len(given) != 1 or not is_own_host(given[0], hosts):
        name = given[0][:200] if given else ""
        raise HttpError(403, f"host {name!r} is neither loopback nor named in listen.hosts")
    if "origin" in headers:
        raise HttpError(403, "requests from web pages are refused (they carry an Origin)")
    sites = headers.get("sec-fetch-site")
    if sites and any(site.strip().lower() not in ("none", "same-origin") for site in sites):
        raise HttpError(403, "requests from web pages are refused (Sec-Fetch-Site)")


def is_own_host(host: str, hosts: Collection[str]) -> bool:
    """Tell whether a Host header names this daemon: loopback with any port, or one of `hosts`.

    An entry of `hosts` with a port matches that port only; one without matches any.
    """
    wanted = host.strip().lower()
    name = _PORT.sub("", wanted)
    if name.removesuffix(".") == "localhost" or _is_loopback(name):
        return True
    known = {entry.strip().lower() for entry in hosts}
    return wanted in known or name in known or name.removesuffix(".") in known


@lru_cache(maxsize=64)
def _is_loopback(name: str) -> bool:
    literal = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    try:
        address = ipaddress.ip_address(literal)
    except ValueError:
        return False
    if address.version == 6 and literal == name:
        return False  # in a Host header an IPv6 address stands in brackets
    return address.is_loopback


def check_token(headers: Mapping[str, Sequence[str]], token: str) -> None:
    """Ask for `Authorization: Bearer TOKEN`, compared in constant time.

    Raises:
        HttpError: 401.
    """
    given = headers.get("authorization", [])
    scheme, _, value = (given[0] if len(given) == 1 else "").partition(" ")
    matches = hmac.compare_digest(value.strip().encode("latin-1", "replace"), token.encode("utf-8"))
    if not token or scheme.lower() != "bearer" or not matches:
        raise HttpError(
            401,
            "the api needs `Authorization: Bearer TOKEN`; the token is in the file `token` of the state folder",
            headers={"www-authenticate": "Bearer"},
        )

"""Where a request came from: X-Forwarded-For counts only through trusted proxies, read from the right."""

import pytest

from bridge.core.errors import ConfigError
from bridge.sources.push.proxies import TrustedProxies

PROXIES = TrustedProxies(["10.0.0.0/8", "192.0.2.7", "fd00::/8"])


def source(peer, *forwarded):
    return PROXIES.source_ip(peer, [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded])


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.5", ("198.51.100.1",), "203.0.113.5"),  # nobody vouches for it
        ("10.1.1.1", (), "10.1.1.1"),
        ("10.1.1.1", ("198.51.100.1",), "198.51.100.1"),
        ("10.1.1.1", ("1.1.1.1, 198.51.100.1",), "198.51.100.1"),  # what the client itself claimed is left of it
        ("10.1.1.1", ("198.51.100.1, 10.2.2.2", "192.0.2.7"), "198.51.100.1"),
        ("10.1.1.1", ("10.3.3.3, 10.2.2.2",), "10.3.3.3"),
        ("10.1.1.1", ("198.51.100.1:4711",), "198.51.100.1"),
        ("10.1.1.1", ("[2001:db8::1]:4711",), "2001:db8::1"),
        ("::ffff:10.1.1.1", ("198.51.100.1",), "198.51.100.1"),
        ("fd00::1", ("2001:db8::2",), "2001:db8::2"),
        ("10.1.1.1", ("unknown",), "10.1.1.1"),
        ("10.1.1.1", ("198.51.100.1, \xff, 10.2.2.2",), "10.2.2.2"),
        ("10.1.1.1", ("",), "10.1.1.1"),
        ("", ("198.51.100.1",), ""),
    ],
)
def test_source_ip(peer, forwarded, expected):
    assert source(peer, *forwarded) == expected


def test_a_long_chain_is_not_walked_for_ever():
    assert source("10.1.1.1", ",".join(["198.51.100.1"] + ["10.0.0.1"] * 10_000)) == "10.0.0.1"


def test_without_proxies_the_peer_counts():
    assert TrustedProxies().source_ip("10.1.1.1", [(b"x-forwarded-for", b"198.51.100.1")]) == "10.1.1.1"


def test_a_network_that_is_none_is_a_mistake():
    with pytest.raises(ConfigError, match="trusted_proxies"):
        TrustedProxies(["10.0.0.0/33"])

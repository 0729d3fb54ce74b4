"""Where callers of the API may have the daemon connect: entries, what they match, and what no entry opens."""

from ipaddress import IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.egress import Allowed, Egress, parse_allowed, plain

EVERYTHING = ("0.0.0.0/0", "::/0", "*.example.com", "metadata", "localhost")


def egress(*allow):
    return Egress(tuple(map(parse_allowed, allow)))


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "169.254.170.2", "169.254.0.1", "0.0.0.0", "0.1.2.3", "192.0.0.192", "100.100.100.200",
        "168.63.129.16", "224.0.0.1", "255.255.255.255", "fe80::1", "fe80::1%lo", "fec0::1", "fd00:ec2::254",
        "fd00:ec2::23", "fd20:ce::254", "::", "ff02::1",
        "::ffff:169.254.169.254", "::169.254.169.254", "::ffff:0:169.254.169.254", "64:ff9b::169.254.169.254",
        "64:ff9b::a9fe:a9fe", "64:ff9b:1::169.254.169.254", "64:ff9b:1:a9fe:a9:fe00::", "2002:a9fe:a9fe::1",
        "2001:0:a9fe:a9fe::1", "2001:0:1:1::5601:5601",
    ],
)  # fmt: skip
def test_link_local_and_metadata_are_never_reached(address):
    for host in (address, "metadata", "a.example.com"):
        assert "never connected to" in egress(*EVERYTHING).refusal(host, 9092, address)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "10.0.0.1", "192.168.1.1", "172.16.0.1",
     "100.64.0.1", "fd12::1", "8.8.8.8", "2001:4860:4860::8888"],
)  # fmt: skip
def test_nothing_else_is_reached_unless_it_is_allowed(address):
    said = egress().refusal("kafka.test", 9092, address)
    assert said == (
        "kafka.test:9092 is not allowed for callers of the API: the daemon's file needs "
        '[egress] allow = ["kafka.test:9092"], or a [connections.X] with these bootstrap_servers'
    )
    assert egress("kafka.test").refusal("kafka.test", 9092, address) == ""


@pytest.mark.parametrize(
    ("allow", "host", "address", "is_allowed"),
    [
        ("127.0.0.1", "localhost", "127.0.0.1", True),
        ("127.0.0.1", "localhost", "::ffff:127.0.0.1", True),
        ("127.0.0.1", "localhost", "::1", False),
        ("127.0.0.1:9092", "localhost", "127.0.0.1", True),
        ("127.0.0.1:9093", "localhost", "127.0.0.1", False),
        ("10.0.0.0/8", "b", "10.200.0.1", True),
        ("10.0.0.0/8:9092", "b", "10.200.0.1", True),
        ("10.0.0.0/8:1", "b", "10.200.0.1", False),
        ("10.0.0.0/8", "b", "11.0.0.1", False),
        ("10.0.0.0/8", "b", "64:ff9b::10.0.0.1", False),
        ("fd12::/16", "b", "fd12:3::1", True),
        ("[fd12::/16]:9092", "b", "fd12:3::1", True),
        ("[fd12::1]:9093", "b", "fd12::1", False),
        ("::1", "localhost", "::1", True),
        ("*.example.com", "a.b.example.com", "10.0.0.1", True),
        ("*.example.com", "example.com", "10.0.0.1", False),
        ("*.example.com", "evilexample.com", "10.0.0.1", False),
        ("Kafka.Example.com.", "kafka.example.COM.", "10.0.0.1", True),
        ("kafka.example.com:9092", "kafka.example.com", "10.0.0.1", True),
        ("kafka.example.com:9093", "kafka.example.com", "10.0.0.1", False),
    ],
)
def test_entries_match_names_addresses_and_networks_with_and_without_a_port(allow, host, address, is_allowed):
    assert (egress(allow).refusal(host, 9092, address) == "") is is_allowed


@pytest.mark.parametrize(
    "entry",
    ["", "a b", "http://a", "a/8", "a:0", "a:70000", "a:x", "*", "*.*.a", "a.*", "1.2.3", "300.1.1.1", "0x7f000001.1",
     "[a]:1", "10.0.0.1/8", "169.254.169.254", "169.254.0.0/16", "fe80::/64", "fd00:ec2::254", "[fe80::1]:9092"],
)  # fmt: skip
def test_what_is_no_entry_or_opens_nothing_is_refused(entry):
    with pytest.raises(ValueError):
        parse_allowed(entry)


@pytest.mark.parametrize("host", ["127.0.0.1\0.corp.example", "127.0.0.1 .corp.example", "::1%.corp.example", "1。1.corp.example",
                                  "a\n.corp.example", ".corp.example\n"])  # fmt: skip
def test_no_entry_names_what_is_no_host_name(host):
    assert egress("*.corp.example").names("a.corp.example", 1)
    assert not egress("*.corp.example").names(host, 1)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("::ffff:10.0.0.5", "write 10.0.0.5$"),
        ("[::ffff:10.0.0.5]:9092", "write 10.0.0.5:9092$"),
        ("::ffff:10.0.0.0/104", "write 10.0.0.0/8$"),
        ("::ffff:169.254.169.254", "never connected to"),
        ("::ffff:169.254.0.0/112", "never connected to"),
        ("2002:a9fe:a9fe::/48", "never connected to"),
        ("2002:a9fe:a9fe::1", "never connected to"),
        ("64:ff9b::a9fe:a9fe", "never connected to"),
        ("64:ff9b::a9fe:0/112", "never connected to"),
        ("64:ff9b:1:a9fe:a9:fe00::", "never connected to"),
        ("2001:0:a9fe:a9fe::1", "never connected to"),
    ],
)
def test_an_entry_that_could_match_nothing_is_refused(entry, said):
    with pytest.raises(ValueError, match=said):
        parse_allowed(entry)


@pytest.mark.parametrize(
    "entry",
    ["::1", "::/127", "::/96", "::/0", "2002::/16", "2002:a900::/24", "2002:a00:5::/48", "64:ff9b::/96", "64:ff9b::a00:5",
     "64:ff9b:1::/48", "2001::/32", "0.0.0.0/0", "169.0.0.0/8"],
)  # fmt: skip
def test_an_entry_that_could_match_something_is_taken(entry):
    network = parse_allowed(entry).network
    assert network is not None


@given(st.ip_addresses(v=6) | st.ip_addresses(v=6, network="::/94") | st.ip_addresses(v=6, network="2002:a9fe::/32"))
def test_an_address_is_taken_as_an_entry_if_it_allows_itself(address):
    try:
        allowed = parse_allowed(str(address))
    except ValueError:
        assert plain(address) != address or Egress((Allowed(network=IPv6Network(address)),)).refusal(
            "x", 1, str(address)
        )
    else:
        assert Egress((allowed,)).refusal("x", 1, str(address)) == ""


@given(st.text(max_size=40) | st.from_regex(r"[0-9a-f.:/\[\]*]{1,40}", fullmatch=True))
def test_an_entry_is_read_or_refused(text):
    try:
        allowed = parse_allowed(text)
    except ValueError:
        return
    assert bool(allowed.name) is (allowed.network is None)


@given(st.ip_addresses(v=4, network="169.254.0.0/16"))
def test_no_way_of_writing_a_denied_address_opens_it(address):
    for prefix in ("::ffff:", "64:ff9b::", "::ffff:0:", "::"):
        assert egress(*EVERYTHING).refusal("metadata", 80, f"{prefix}{address}")

"""What is shown of a function's network, and which files are refused for it."""

from types import SimpleNamespace

import pytest

from bridge.core.errors import ConfigError
from bridge.core.function import Function, FunctionVersion, function_arn
from bridge.core.network import NONE, VPC, VpcConfig, interfaces, vpc_id
from bridge.daemon.networks import check_networks, network_view

NETWORK = VpcConfig(subnet_ids=("subnet-0a1b2c3d", "subnet-0b1b2c3d"), security_group_ids=("sg-0a1b2c3d",))
SPACE = "us-east-1.000000000000"


def function(name="one", *, reserved=None, **fields):
    latest = FunctionVersion(name=name, arn=function_arn(name), code="", revision="1", handler="app.handler", **fields)
    return Function(name=name, latest=latest, reserved_concurrency=reserved)


class Networks:
    def __init__(self, trouble=""):
        self.trouble = trouble
        self.asked = []

    async def prepare(self, versions):
        self.asked += versions

    def described(self, _version):
        return "some network"


def view(one, *others):
    return network_view(one, [one, *others], networks=Networks(), account_concurrency=1000)


def test_interfaces_and_projected_addresses_of_what_is_reserved():
    assert view(function(reserved=300, memory_mb=1536, vpc=NETWORK)) == {
        "network": "some network",
        "vpc_id": vpc_id(SPACE),
        "network_interfaces": interfaces(NETWORK, SPACE),
        "peak_concurrency": 300,
        "projected_addresses": 150,
    }


def test_what_reserves_none_has_all_that_is_left():
    shown = view(function(memory_mb=3072, vpc=NETWORK), function("two", reserved=400))

    assert (shown["peak_concurrency"], shown["projected_addresses"]) == (600, 600)


def test_without_a_vpc_config_there_is_nothing_to_project():
    assert view(function(network=NONE)) == {"network": "some network"}


def pool(*, trouble="", is_alone=True):
    facts = [("network namespace", is_alone, "" if is_alone else "Operation not permitted")]
    return SimpleNamespace(networks=Networks(trouble), sandbox_facts=lambda: facts)


async def test_what_can_be_had_is_taken():
    given = pool()

    await check_networks([function(network=NONE), function("two", network=VPC, vpc=NETWORK)], given)

    assert [version.name for version in given.networks.asked] == ["one", "two"]


async def test_none_is_never_dropped_in_silence():
    with pytest.raises(
        ConfigError, match=r'functions.one.network = "none" cannot be had here: Operation not permitted; `br'
    ):
        await check_networks([function(network=NONE)], pool(is_alone=False))


async def test_vpc_is_refused_where_auto_is_not():
    await check_networks([function(vpc=NETWORK)], pool(trouble="the daemon is not root"))

    with pytest.raises(
        ConfigError, match=r'functions.one.network = "vpc" cannot be had here: the daemon is not root; `br'
    ):
        await check_networks([function(vpc=NETWORK, network=VPC)], pool(trouble="the daemon is not root"))

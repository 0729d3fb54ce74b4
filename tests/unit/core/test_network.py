"""Ids that stand for what AWS would make of a VpcConfig, and the addresses that it would take."""

import re

from bridge.core.network import VpcConfig, interfaces, projected_addresses, vpc_id

A, B = "subnet-0a1b2c3d", "subnet-0123456789abcdef0"
GROUPS = ("sg-0a1b2c3d", "sg-0b1b2c3d")
SPACE = "us-east-1.000000000000"


def config(*subnets, groups=GROUPS):
    return VpcConfig(subnet_ids=subnets, security_group_ids=groups)


def test_there_is_one_interface_in_each_subnet():
    found = interfaces(config(A, B), SPACE)

    assert list(found) == [A, B]
    assert all(re.fullmatch(r"eni-[0-9a-f]{17}", each) for each in found.values())
    assert len(set(found.values())) == 2


def test_functions_with_the_same_subnet_and_groups_share_it():
    assert interfaces(config(A, B), SPACE)[A] == interfaces(config(A, groups=GROUPS[::-1]), SPACE)[A]
    assert interfaces(config(A), SPACE) != interfaces(config(A, groups=GROUPS[:1]), SPACE)
    assert interfaces(config(A), SPACE) != interfaces(config(A), "eu-central-1.000000000000")


def test_ids_are_the_same_after_a_restart_and_on_every_machine():
    assert interfaces(config(A), SPACE) == {A: "eni-ca96185bf18c15ce9"}
    assert vpc_id(SPACE) == "vpc-19b865d2c159af769"


def test_a_network_is_shared_by_the_same_subnets_and_groups_in_any_order():
    assert config(A, B).set_in(SPACE) == config(B, A, groups=GROUPS[::-1]).set_in(SPACE)
    assert len({config(A, B).set_in(SPACE), config(A).set_in(SPACE), config(A, B).set_in("other")}) == 3


def test_projected_addresses():
    assert projected_addresses(300, 1536) == 150
    assert projected_addresses(1, 128) == 1
    assert projected_addresses(0, 128) == 0

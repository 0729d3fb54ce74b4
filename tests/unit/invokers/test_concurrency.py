"""The account's concurrency: what is reserved and what is provisioned is kept from the others, and given back."""

from dataclasses import replace

import pytest

from bridge.core.function import Alias, Function, FunctionVersion, function_arn
from bridge.invokers.service import Concurrency, Draw


def function(name, **more):
    latest = FunctionVersion(name=name, arn=function_arn(name), code="/x", revision="0", handler="a.b")
    versions = {number: replace(latest, version=number, revision=number) for number in ("1", "2")}
    return Function(name=name, latest=latest, versions=versions, **more)


@pytest.fixture
def counted():
    made = Concurrency(account=10)
    made.configure(account=10, reserved={"": 2}, provisioned={("warm", "1"): 3})
    return made


def test_each_draws_on_its_own_and_gives_it_back(counted):
    reserved, warm, other = function("reserved", reserved_concurrency=2), function("warm"), function("other")
    assert [counted.room(each, "1") for each in (reserved, warm, other)] == [2, 8, 5]
    draws = [counted.begin(warm, "1") for _ in range(4)]
    assert draws == [Draw.PROVISIONED] * 3 + [Draw.UNRESERVED]
    assert [counted.room(each, "1") for each in (reserved, warm, other)] == [2, 4, 4]
    assert counted.room(warm, "2") == 4  # of another version nothing is provisioned
    assert counted.begin(reserved, "1") is Draw.RESERVED
    assert [counted.room(each, "1") for each in (reserved, warm, other)] == [1, 4, 4]
    for draw in draws:
        counted.end("warm", "1", draw=draw)
    counted.end("reserved", "1", draw=Draw.RESERVED)
    assert [counted.room(each, "1") for each in (reserved, warm, other)] == [2, 8, 5]


def test_limits_that_change_under_what_runs(counted):
    warm = function("warm")
    draws = [counted.begin(warm, "1") for _ in range(3)]
    counted.configure(account=10, reserved={"": 2})
    assert counted.room(warm, "1") == 8
    for draw in draws:
        counted.end("warm", "1", draw=draw)
    counted.configure(account=10, reserved={"": 2}, provisioned={("warm", "1"): 3})
    assert counted.room(warm, "1") == 8
    assert counted.running("warm") == 0


def test_the_account_is_each_name_spaces_own(counted):
    here, there = function("other"), function("other@eu-west-1.222222222222")
    counted.configure(
        account=10,
        reserved={"": 2, "eu-west-1.222222222222": 4},
        provisioned={("warm", "1"): 3, ("warm@eu-west-1.222222222222", "1"): 1},
    )
    assert (counted.room(here), counted.room(there)) == (5, 5)
    draws = [counted.begin(here) for _ in range(5)]
    assert (counted.room(here), counted.room(there)) == (0, 5)
    counted.begin(there)
    for draw in draws:
        counted.end("other", draw=draw)
    assert (counted.room(here), counted.room(there)) == (5, 4)


@pytest.mark.parametrize(
    ("weight", "shares"), [(0.0, {"1": 10}), (0.25, {"1": 8, "2": 2}), (0.5, {"1": 5, "2": 5}), (1.0, {"2": 10})]
)
def test_a_weighted_aliass_is_split(weight, shares):
    alias = Alias(name="live", version="1", additional="2", weight=weight)
    made = function("warm", aliases={"live": alias}, provisioned={"live": 10, "2": 1})
    assert made.warm("live") == shares
    assert sum(made.warm().values()) == 11

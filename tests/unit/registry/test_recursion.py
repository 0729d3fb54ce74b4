"""Loops of functions: the chain in the trace header, where it is stopped, and which functions may go on."""

from urllib.parse import quote

import pytest

from bridge.core import limits
from bridge.core.errors import RecursiveInvocation
from bridge.core.function import function_arn
from bridge.registry import recursion as module
from bridge.registry.recursion import ALLOW, TERMINATE, Recursion
from tests.documents import MemoryDocuments

IDS = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(100)]


@pytest.fixture
def recursion():
    return Recursion(MemoryDocuments(), arn_of=function_arn)


def loop(recursion, *names, rounds):
    """Have functions invoke each other in turn, each with the header that it saw."""
    header, done = "", 0
    for request_id, name in zip(IDS, names * rounds, strict=False):
        recursion.admit(request_id, name, header)
        header = recursion.trace(request_id, name, now=1_767_225_600.0)
        done += 1
    return done


def test_a_function_is_stopped_after_sixteen_rounds(recursion):
    assert loop(recursion, "f", rounds=limits.RECURSION_MAX) == 16
    with pytest.raises(RecursiveInvocation, match="f was invoked 16 times"):
        loop(recursion, "f", rounds=limits.RECURSION_MAX + 1)


def test_two_that_call_each_other_are_stopped_by_either_ones_rounds(recursion):
    assert loop(recursion, "f", "g", rounds=16) == 32
    with pytest.raises(RecursiveInvocation, match="f was invoked 16 times"):
        loop(recursion, "f", "g", rounds=17)


async def test_one_that_may_goes_on_and_another_start_knows_it():
    store = MemoryDocuments()
    recursion = Recursion(store, arn_of=function_arn)
    await recursion.set_mode("f", ALLOW)
    assert loop(recursion, "f", rounds=40) == 40
    again = Recursion(store, arn_of=function_arn)
    await again.open()
    assert (again.mode("f"), again.mode("g")) == (ALLOW, TERMINATE)
    await again.set_mode("f", TERMINATE)
    with pytest.raises(RecursiveInvocation):
        loop(again, "f", rounds=17)
    await again.set_mode("f", ALLOW)
    await again.forget(function_arn("f"), "live")
    assert again.mode("f") == ALLOW
    await again.forget(function_arn("f"), None)
    assert again.mode("f") == TERMINATE


@pytest.mark.parametrize("header", ["", "Root=1-2-3", "Lineage=", "Lineage=zz:99", "x" * 5000, "Lineage=0252f10c:-1"])
def test_a_header_without_a_chain_says_nothing(recursion, header):
    recursion.admit(IDS[0], "f", header)
    assert recursion.trace(IDS[0], "f", now=0.0).endswith(f"Lineage={module._key('f')}:1")


def test_a_header_of_a_caller_is_bounded_and_so_is_what_is_remembered(recursion, monkeypatch):
    monkeypatch.setattr(module, "CHAINS_MAX", 3)
    for request_id in IDS[:10]:
        recursion.admit(
            request_id, "f", "Root=1-a-b;Lineage=" + "|".join(f"{n:08x}:1" for n in range(60)) + ";Sampled=0"
        )
    assert list(recursion._chains) == IDS[7:10]
    assert len(recursion._chains[IDS[9]]) == 32


def header(*members):
    return "Root=1-a-b;Sampled=0;Lineage=" + "|".join(f"{module._key(name)}:{count}" for name, count in members)


def test_a_header_counts_as_botocore_writes_it(recursion):
    """Its handler add_recursion_detection_header quotes the bars, and SQS keeps what it is sent."""
    quoted = quote(header(("f", 16), ("g", 15)), safe="-=;:+&[]{}\"',")
    assert "%7C" in quoted
    assert "f was invoked 16 times" in recursion.why_stopped("f", quoted)
    assert recursion.why_stopped("g", quoted) == recursion.why_stopped("f", "") == ""
    recursion.admit(IDS[0], "g", quoted)
    assert recursion.trace(IDS[0], "g", now=0.0).endswith(f"Lineage={module._key('g')}:16|{module._key('f')}:16")


def test_a_chain_of_aws_s_own_goes_on(recursion):
    recursion.admit(IDS[0], "f", "Root=1-a-b;Parent=c;Sampled=0;Lineage=1:24d8ebbc:5")
    assert recursion.trace(IDS[0], "f", now=0.0).endswith(f"Lineage={module._key('f')}:1|24d8ebbc:5")


async def test_a_batch_has_the_longest_chain_of_each_function_until_it_is_left(recursion):
    recursion.follow(IDS[0], ["", header(("f", 3), ("g", 9)), "no header", header(("f", 7))])
    shown = recursion.trace(IDS[0], "f", now=0.0)
    assert shown.endswith(f"Lineage={module._key('f')}:8|{module._key('g')}:9")
    recursion.leave(IDS[0])
    recursion.leave(IDS[0])
    recursion.follow(IDS[1], ["", ""])
    assert not recursion._chains
    assert not recursion.allows("f")
    await recursion.set_mode("f", ALLOW)
    assert recursion.allows("f")
    assert recursion.why_stopped("f", header(("f", 99))) == ""


def test_a_function_is_found_in_a_chain_that_is_too_long(recursion):
    names = [f"f{number}" for number in range(40)]
    last, done = "", 0
    with pytest.raises(RecursiveInvocation):
        for number in range(10_000):
            name = names[number % len(names)] if number % 2 else "often"
            recursion.admit(IDS[number % 100], name, last)
            last, done = recursion.trace(IDS[number % 100], name, now=0.0), done + 1
    assert done == 32

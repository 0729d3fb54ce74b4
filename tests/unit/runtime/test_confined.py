"""The level that is told of a sandbox is never higher than what was measured, for each kind of worker."""

import pytest

from bridge.core.function import FunctionVersion, function_arn
from bridge.runtime.confined import COMMAND, LEVELS, PYTHON, Confined, findings, level
from bridge.runtime.landlock import NOTHING_LEFT
from bridge.runtime.sandbox import Fact

EVERYTHING = ("seccomp", "landlock", "mount namespace", "process namespace", "control group")


def facts(*in_force):
    return [Fact(mechanism=one, in_force=one in in_force, detail=one[:3]) for one in EVERYTHING]


def version(runtime):
    return FunctionVersion(name="f", arn=function_arn("f"), handler="a.b", code="/code", revision="1", runtime=runtime)


@pytest.mark.parametrize(
    ("in_force", "expected"),
    [
        ((), "basic"),
        (("seccomp",), "seccomp"),
        (("seccomp", "landlock"), "landlock"),
        (("seccomp", "mount namespace"), "seccomp"),
        (("seccomp", "mount namespace", "process namespace"), "namespaces"),
        (("seccomp", "landlock", "control group"), "landlock"),
        (EVERYTHING, "cgroup"),
    ],
)
def test_a_level_has_all_that_it_is_made_of(in_force, expected):
    assert level(facts(*in_force)) == expected


def test_each_kind_has_its_own_level_and_the_daemon_the_lower_one():
    confined = Confined()
    assert (confined.level, confined.facts, confined.level_of(version("python3.12"))) == ("basic", [], "basic")

    confined.measured({PYTHON: facts(*EVERYTHING), COMMAND: facts("seccomp", "mount namespace", "process namespace")})

    assert confined.level_of(version("python3.12")) == "cgroup"
    assert confined.level_of(version("provided.al2023")) == confined.level == "namespaces"
    assert [fact.mechanism for fact in confined.facts] == list(EVERYTHING)
    assert {fact.mechanism for fact in confined.facts if fact.in_force} == {
        "seccomp", "mount namespace", "process namespace",
    }  # fmt: skip


def test_no_control_group_is_told_and_no_trouble():
    told = findings("seccomp", [("seccomp", True, ""), ("control group", False, "read-only"), ("own user", False, "no"),
                                ("landlock", False, NOTHING_LEFT)])  # fmt: skip

    assert told == [
        ("sandbox level", True, "seccomp"),
        ("seccomp", True, ""),
        ("control group", True, "none: read-only"),
        ("own user", False, "no"),
        ("landlock", True, NOTHING_LEFT),
    ]


def test_the_levels_are_told_weakest_first():
    assert LEVELS == ("basic", "seccomp", "landlock", "namespaces", "cgroup")

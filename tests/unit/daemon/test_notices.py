"""What the daemon says of functions unasked."""

from dataclasses import replace

import pytest

from bridge.config.load import load
from bridge.core.function import Function, FunctionVersion
from bridge.daemon import notices
from bridge.daemon.notices import concurrency_facts, lost_functions, port_facts


def version(number="$LATEST", unrunnable=""):
    return FunctionVersion(
        name="f", version=number, arn="a", code="/c", revision="r", handler="a.b", unrunnable=unrunnable
    )


def keeping(reserved=None, **provisioned):
    return Function(name="f", latest=version(), reserved_concurrency=reserved, provisioned=provisioned)


@pytest.mark.parametrize(
    ("functions", "account", "ok"),
    [
        ([keeping()], 10, True),
        ([keeping(900)], 1000, True),
        ([keeping(900), keeping(live=1)], 1000, False),
        ([keeping(0)], 50, True),
        ([keeping(49)], 50, True),
        ([keeping(50)], 50, False),
        ([keeping(600), keeping(600)], 1000, False),
    ],
)
def test_the_unreserved_minimum_is_missed_out_loud(functions, account, ok):
    ((name, told, text),) = concurrency_facts(functions, account)
    assert (name, told) == ("concurrency", ok)
    assert ("lower reserved_concurrency" in text) is not ok


def test_each_name_space_has_its_own_minimum():
    far = replace(keeping(950), name="f@eu-west-1.111122223333")
    told = list(concurrency_facts([keeping(900), far], 1000))
    assert [(name, ok) for name, ok, _ in told] == [
        ("concurrency", True), ("concurrency of eu-west-1.111122223333", False),
    ]  # fmt: skip


def test_lost_code_is_told_of_each_version_and_a_runtime_without_interpreter_is_not():
    lost = "InvalidZipFileException: the package is lost; give it again"
    function = Function(
        name="f", latest=version(unrunnable=lost), versions={"1": version("1"), "2": version("2", lost)}
    )
    other = Function(name="g", latest=version(unrunnable="InvalidRuntimeException: no interpreter"))

    assert list(lost_functions([function, other])) == [
        ("function f", False, "the package is lost; give it again"),
        ("function f:2", False, "the package is lost; give it again"),
    ]


@pytest.mark.parametrize(
    ("closed", "text", "knows", "told"),
    [
        ((8581,), '[access_keys.K]\nsecret = { env = "S" }\n', True, True),
        ((8581,), '[access_keys.K]\nsecret = { env = "S" }\n', False, False),
        ((8581,), "[log]\n", True, False),
        ((), '[access_keys.K]\nsecret = { env = "S" }\n', True, False),
        ((8581,), '[api]\nauth = "none"\n', True, True),
    ],
)
def test_a_port_that_stays_closed_until_a_restart_is_told(tmp_path, monkeypatch, closed, text, knows, told):
    monkeypatch.setattr(notices, "knows_ports", lambda: knows)
    file = tmp_path / "bridge.toml"
    file.write_text(text)

    facts = list(port_facts(closed, load(file, {"S": "secret"}).settings))

    assert [(name, ok) for name, ok, _ in facts] == ([("api port", False)] if told else [])
    assert all("until a restart" in detail for _, _, detail in facts)

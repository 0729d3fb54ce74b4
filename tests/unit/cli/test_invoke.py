"""`bridge invoke` and `bridge logs`."""

import json

import pytest

from bridge.core.invocation import InvocationResult, ResultKind


@pytest.fixture
def asked(served):
    """The payloads that the function was given."""
    payloads = []

    def handler(invocation):
        payloads.append(invocation.payload)
        return {"hello": "\u00fc\x1b"}

    served.world.runtime.handlers["hello"] = handler
    return payloads


def test_prints_what_the_function_returned_byte_for_byte_on_a_pipe(bridge, asked):
    found = bridge("invoke", "hello", "--payload", '{"a": 1.10}')

    assert (found.code, found.raw, found.err) == (0, '{"hello":"\u00fc\\u001b"}\n'.encode(), "")
    assert asked == [b'{"a": 1.10}']


def test_payloads_come_from_a_file_or_standard_input(bridge, asked, tmp_path):
    (tmp_path / "event.json").write_bytes(b'{"from": "file"}\n')

    bridge("invoke", "hello", "--payload", "@event.json")
    bridge("invoke", "hello", "--payload", "-", stdin=b'{"from": "stdin"}')
    bridge("invoke", "hello")

    assert asked == [b'{"from": "file"}\n', b'{"from": "stdin"}', b"{}"]


@pytest.mark.parametrize(
    ("args", "code", "names"),
    [(["hello", "--payload", "{"], 2, "Could not parse"), (["hello", "--payload", "@missing.json"], 2, "missing.json: No such file"),
     (["hello", "--payload", "@."], 2, "Is a directory"), (["nope"], 1, "Function not found"), (["hello:7"], 1, "Function not found"),
     (["a/b"], 1, "Function not found"), (["hello", "--type", "Sync"], 2, "--type"), ([], 2, "Missing argument")],
)  # fmt: skip
def test_mistakes(bridge, asked, args, code, names):
    found = bridge("invoke", *args)

    assert (found.code, names in found.err) == (code, True), found.err
    assert asked == []


def test_a_payload_that_is_too_large(bridge, tmp_path):
    (tmp_path / "big.json").write_bytes(b'"' + b"x" * 6_291_456 + b'"')

    found = bridge("invoke", "hello", "--payload", "@big.json")

    assert (found.code, "byte payload is too large" in found.err) == (1, True), found.err


def test_a_function_error_is_1_with_the_error_on_standard_output(bridge, served):
    served.world.runtime.handlers["hello"] = lambda _: InvocationResult(
        kind=ResultKind.FUNCTION_ERROR,
        payload=b'{"errorType":"ValueError"}',
        version="$LATEST",
        log_tail=b"START\n\x1b[2J\nEND\n",
    )

    found = bridge("invoke", "hello", "--log")

    assert (found.code, json.loads(found.out)) == (1, {"errorType": "ValueError"})
    assert found.err == "START\n\\x1b[2J\nEND\nbridge: function error (Unhandled)\n"


def test_event_prints_the_id_and_dry_run_nothing(bridge, served, asked):
    stored = bridge("invoke", "hello", "--type", "event")
    checked = bridge("invoke", "hello", "--type", "DryRun")

    assert served.world.journal.find(stored.out.strip()).payload == b"{}"
    assert f"bridge events show {stored.out[:8]}" in stored.err
    assert (checked.code, checked.out, checked.err) == (0, "", "OK  it exists and may be invoked; nothing ran\n")
    assert asked == []


def test_logs(bridge, served):
    served.world.logs.lines.extend((float(n), "s", f"line {n}\t\x1b[2J") for n in range(5))

    assert bridge("logs", "hello", "-n", "2").out == "line 3  \\x1b[2J\nline 4  \\x1b[2J\n"
    assert json.loads(bridge("logs", "hello", "-n", "1", "--json").out)["line"] == "line 4\t\x1b[2J"
    assert bridge("logs", "nope").code == 1
    assert bridge("logs", "hello", "-n", "-1").code == 2


def test_logs_by_awss_names_of_group_and_stream(bridge, served):
    served.world.logs.lines += [(1.0, "2026/01/02/[1]aa", "one"), (2.0, "2026/01/02/[2]bb", "two")]

    assert bridge("logs", "/aws/lambda/hello", "--stream", "2026/01/02/[1]").out == "one\n"
    assert bridge("logs", "hello").out == "one\ntwo\n"

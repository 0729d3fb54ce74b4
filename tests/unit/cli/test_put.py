"""`bridge put`."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from bridge.core.errors import LaneFull
from bridge.core.mapping import NO_RECORDS, EventSourceMapping, MappingState
from bridge.core.sources import MappingStatus
from bridge.core.stream import PutRecord
from tests.harness import wait_for


def add(world, name: str, source: str) -> None:
    world.mappings.add(
        MappingStatus(
            mapping=EventSourceMapping(name=name, source=source, function="hello"),
            state=MappingState.ENABLED,
            reason="USER_INITIATED",
            result=NO_RECORDS,
            modified_at=0.0,
        )
    )


@pytest.fixture
def streams(served):
    add(served.world, "orders", "local://clicks?as=kafka")
    add(served.world, "live", "kafka://main/orders")
    add(served.world, "hooks", "sensors")
    add(served.world, "lost", "local://nothing?as=kafka")
    return served.world.streams


def values(streams):
    return [record.value for record in streams.records]


def test_a_document_on_the_command_line_is_one_record(bridge, streams):
    found = bridge("put", "orders", '{"id": 7}')

    assert (found.code, found.out) == (0, "1 record put into local://clicks\n")
    assert streams.records == [PutRecord(value=b'{"id": 7}')]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a":1}\n\n  {"a": 2}  \n{"a":3}', [b'{"a":1}', b'{"a": 2}', b'{"a":3}']),
        ('[{"a":1}, "x", [2], null]', [b'{"a":1}', b'"x"', b"[2]", b"null"]),
        ('[\n {"a": 1},\n {"a": 2}\n]\n', [b'{"a":1}', b'{"a":2}']),
        ('{\n  "a": 1\n}\n', [b'{\n  "a": 1\n}']),
        ("[1]\n[2]\n", [b"[1]", b"[2]"]),
        ("plain text\nmore\r\n", [b"plain text", b"more"]),
        ("\n\n5\n", [b"5"]),
        ("", []),
        ("\n", []),
        ("[]", []),
    ],
)
def test_lines_arrays_and_documents(bridge, streams, tmp_path, text, expected):
    path = tmp_path / "records"
    path.write_text(text)
    for arguments, options in ((("put", "orders", str(path)), {}), (("put", "orders", "-"), {"stdin": text})):
        streams.records.clear()
        found = bridge(*arguments, **options)

        assert (found.code, found.err) == (0, "")
        assert values(streams) == expected


def test_the_key_is_a_field_of_the_value(bridge, streams):
    lines = '{"user":{"id":"ü"}}\n{"user":{"id":7}}\n{"user":{"id":null}}\n{"user":5}\ntext\n'
    bridge("put", "orders", "-", "--key", "user.id", stdin=lines)

    assert [record.key for record in streams.records] == ["ü".encode(), b"7", None, None, None]


def test_lines_may_be_records(bridge, streams):
    lines = [
        {"key": "k", "value": {"a": 1}, "headers": {"h": "x", "n": None}},
        {"key": None, "value": "text", "headers": {}},
        {"value": None, "timestamp": 12},
        {"value": 5, "headers": [{"h": "1"}, {"h": "2"}]},
    ]
    found = bridge("put", "orders", "-", "--records", stdin="\n".join(map(json.dumps, lines)))

    assert found.code == 0
    assert streams.records == [
        PutRecord(key=b"k", value=b'{"a":1}', headers=(("h", b"x"), ("n", None))),
        PutRecord(value=b"text"),
        PutRecord(value=None, timestamp_ms=12),
        PutRecord(value=b"5", headers=(("h", b"1"), ("h", b"2"))),
    ]


@pytest.mark.parametrize("line", ["text", "5", "{}", '{"key":"k"}', '{"value":1,"extra":2}'])
def test_a_line_that_is_no_record_is_a_mistake(bridge, streams, line):
    found = bridge("put", "orders", "-", "--records", stdin='{"value":1}\n' * 2 + line)

    assert found.code == 2
    assert "with --records a line is a JSON object with value" in found.err
    assert found.err.count("\n") == 1


@pytest.mark.parametrize("headers", [[1], "x", 5, [["h", "x"]], [{"h": "x"}, None]])
def test_headers_that_are_none_are_a_mistake(bridge, streams, headers):
    found = bridge("put", "orders", "-", "--records", stdin=json.dumps({"value": 1, "headers": headers}))

    assert (found.code, streams.records) == (2, [])
    assert "headers are an object, or a list of objects of one member" in found.err


def test_many_go_in_few_requests(bridge, streams):
    bridge("put", "orders", "-", stdin="".join(f'{{"n":{n}}}\n' for n in range(1201)))

    assert streams.puts == [500, 500, 201]
    assert values(streams)[-1] == b'{"n":1200}'
    streams.puts.clear()
    bridge("put", "orders", "-", stdin=("x" * 300_000 + "\n") * 3)
    assert streams.puts == [1, 1, 1]


def test_json_says_what_was_put(bridge, streams):
    found = bridge("put", "orders", "[1,2,3]", "--json")

    assert json.loads(found.out) == {"mapping": "orders", "stream": "clicks", "records": 3, "last": 2}
    assert json.loads(bridge("put", "orders", "[]", "--json").out)["last"] is None


@pytest.mark.parametrize(
    ("mapping", "text"),
    [
        (
            "live",
            "bridge: live reads kafka://main/orders, no embedded stream; `bridge run --local FILE` makes it one\n",
        ),
        ("hooks", "bridge: hooks reads what is sent to the source sensors, which does not run\n"),
        ("nobody", "bridge: no mapping or source nobody; known are hooks, live, lost, orders\n"),
    ],
)
def test_anything_but_an_embedded_stream_is_refused_in_one_line(bridge, streams, mapping, text):
    found = bridge("put", mapping, "{}")

    assert (found.code, found.out, found.err) == (2, "", text)
    assert streams.records == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("orders", "no-such-file"), "no-such-file: No such file or directory, and it is not JSON either"),
        (("orders", "{broken"), "it is not JSON either"),
        (("orders", "1", "--key", "a", "--records"), "--key reads a field of the value"),
        (("orders", "1", "--rate", "0"), "--rate"),
    ],
)
def test_usage(bridge, streams, arguments, text):
    found = bridge("put", *arguments)

    assert found.code == 2
    assert text in found.err


def test_input_that_begins_like_json_and_is_none(bridge, streams):
    found = bridge("put", "orders", "-", stdin='{"a":\n')

    assert found.code == 2
    assert found.err.startswith("bridge: the input begins like JSON but is none")


def test_a_full_stream_is_waited_for(bridge, streams, monkeypatch):
    waited = []
    monkeypatch.setattr("bridge.cli.put_records.time.sleep", waited.append)
    streams.fail_with = [LaneFull("mapping orders has 5 events")] * 3
    found = bridge("put", "orders", "1")

    assert (found.code, waited, values(streams)) == (0, [1.0] * 3, [b"1"])

    streams.fail_with = [LaneFull("mapping orders has 5 events")] * 60
    found = bridge("put", "orders", "-", stdin="1\n")
    assert found.code == 1
    assert found.err == "bridge: mapping orders has 5 events; 0 records went into local://clicks\n"


def test_a_stream_that_went_meanwhile_says_so(bridge, streams):
    found = bridge("put", "lost", "1")

    assert found.code == 1
    assert found.err == "bridge: no mapping reads local://nothing; 0 records went into local://nothing\n"


@pytest.mark.slow
def test_the_rate_is_kept(bridge, streams):
    began = time.monotonic()
    bridge("put", "orders", "-", "--rate", "50", stdin="1\n" * 40)

    assert time.monotonic() - began > 0.6
    assert len(streams.records) == 40


def process(served, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "bridge", "--state", str(served.state), "put", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, **options,
    )  # fmt: skip


@pytest.mark.slow
def test_a_pipe_that_stays_open_is_put_as_it_comes_and_ctrl_c_says_how_far_it_got(served, streams):
    put = process(served, "orders", "-")
    put.stdin.write(b'{"n":1}\n')
    put.stdin.flush()
    wait_for(lambda: len(streams.records) == 1, description="the first line is put")
    put.stdin.write(b'{"n":2}\n{"n":3}\n')
    put.stdin.flush()
    wait_for(lambda: len(streams.records) == 3, description="the others are put")
    put.send_signal(signal.SIGINT)
    out, err = put.communicate(timeout=60)

    assert (put.returncode, out) == (130, b"")
    # What is stored is told once the answer is here, and we may have been quicker than that.
    assert re.fullmatch(rb"\s*stopped; (1 record|[23] records) went into local://clicks\s*", err)


@pytest.mark.slow
def test_nobody_reads_what_it_says(served, streams):
    put = process(served, "orders", "[1,2]")
    put.stdout.close()
    put.stdin.close()

    assert put.wait(60) == 0
    assert len(streams.records) == 2
    assert put.stderr.read() == b""
    put.stderr.close()


class TestOfAws:
    @pytest.fixture
    def streams(self, served):
        add(served.world, "events", "local://clicks?as=kinesis")
        add(served.world, "carts", "local://clicks?as=dynamodb")
        return served.world.streams

    def test_a_kinesis_record_has_its_partition_key(self, bridge, streams):
        made = bridge("generate-event", "kinesis", "--records", "--partition-key", "ada", "--data", '{"a": 1}')

        found = bridge("put", "events", "-", "--records", stdin=made.out)

        assert found.code == 0
        assert streams.records == [PutRecord(key=b"ada", value=b'{"a":1}')]

    def test_an_item_with_its_key(self, bridge, streams):
        found = bridge("put", "carts", '{"pk": "ada", "sk": 2, "n": 1.50}', "--key", "pk,sk")

        assert found.code == 0
        (record,) = streams.records
        assert record.key == b'{"pk":{"S":"ada"},"sk":{"N":"2"}}'
        assert json.loads(record.value) == {
            "eventName": "INSERT",
            "dynamodb": {
                "Keys": {"pk": {"S": "ada"}, "sk": {"N": "2"}},
                "NewImage": {"pk": {"S": "ada"}, "sk": {"N": "2"}, "n": {"N": "1.50"}},
            },
        }

    def test_an_item_without_its_key_is_refused(self, bridge, streams):
        found = bridge("put", "carts", '{"a": 1}', "--key", "pk")

        assert found.code == 2
        assert "an item has no pk, which is its key" in found.err
        assert streams.records == []

    @pytest.mark.parametrize("options", [(), ("--records",)])
    def test_a_stream_record_goes_as_it_is(self, bridge, streams, options):
        made = bridge("generate-event", "dynamodb", "--records", "--count", "2", "--new", '{"id": 7}')

        found = bridge("put", "carts", "-", *options, stdin=made.out)

        assert found.code == 0
        assert [json.loads(line) for line in made.out.splitlines()] == [json.loads(v) for v in values(streams)]

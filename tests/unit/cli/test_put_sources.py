"""`bridge put` into push sources: what is sent of an input, what is shown of the answers, and which NAME is meant."""

import json

import pytest

from bridge.core.errors import LaneFull
from bridge.core.push import Accepted, Given, NotAccepted
from tests.unit.cli.test_put import add


@pytest.fixture
def sources(served):
    sources = served.world.sources
    sources.add("hook")
    sources.add("sensors", kind="mqtt", place="mqtt://127.0.0.1:1883")
    sources.add("nightly", kind="schedule", place="rate(1 hour)", next_at=None, last_at=None)
    return sources


def datas(sources):
    return [given.data for _, given in sources.given]


def test_an_event_is_given_and_its_id_is_printed(bridge, sources):
    found = bridge("put", "hook", '{"id": 7}')

    assert (found.code, found.out, found.err) == (0, "id-1\n", "")
    assert sources.given == [("hook", Given(data=b'{"id": 7}'))]


def test_a_line_is_an_event_in_order(bridge, sources):
    lines = "".join(f'{{"n": {n}}}\n' for n in range(450))
    found = bridge("put", "hook", "-", stdin=lines)

    assert found.out == "".join(f"id-{n}\n" for n in range(1, 451))
    assert datas(sources) == [line.encode() for line in lines.splitlines()]


def test_a_request_has_what_the_options_say(bridge, sources):
    bridge(
        "put",
        "hook",
        "{}",
        "--method",
        "PUT",
        "--header",
        "X-GitHub-Event: push",
        "--header",
        "a:b:c",
        "--query",
        "a=1",
    )

    headers = (("X-GitHub-Event", "push"), ("a", "b:c"))
    assert sources.given == [("hook", Given(data=b"{}", method="PUT", query="a=1", headers=headers))]


@pytest.mark.parametrize(
    ("text", "data"), [("[1, 2]", b"[1, 2]"), ("name=Ada&x=1", b"name=Ada&x=1"), (" a\n b\n", b" a\n b\n"), ("", b"")]
)
def test_the_whole_input_may_be_one_body(bridge, sources, text, data):
    found = bridge("put", "hook", text, "--whole")

    assert (found.code, datas(sources)) == (0, [data])


def test_an_input_without_an_event_is_told(bridge, sources):
    found = bridge("put", "hook", "[]")

    assert (found.code, found.out, found.err) == (0, "", "the input holds no event; hook got none\n")
    assert sources.given == []


def test_bytes_are_given_as_they_are(bridge, sources, tmp_path):
    (tmp_path / "image").write_bytes(bytes(range(256)))
    bridge("put", "hook", str(tmp_path / "image"), "--whole")

    assert datas(sources) == [bytes(range(256))]


def test_a_message_has_a_topic(bridge, sources):
    bridge("put", "sensors", '{"t": 1}', "--topic", "plant/3")

    assert sources.given == [("sensors", Given(data=b'{"t": 1}', topic="plant/3"))]


def test_a_schedule_ticks_now_or_then(bridge, sources):
    bridge("put", "nightly")
    bridge("put", "nightly", "--at", "2026-03-01T10:00:00Z")

    assert [given for _, given in sources.given] == [Given(), Given(at=1_772_359_200.0)]


def test_json_says_all_of_each(bridge, sources):
    sources.answers = [Accepted(ids=("a", "b"), duplicates=1), Accepted(ids=("c",), status=200, body=b'"hi"')]
    found = bridge("put", "hook", "-", "--json", stdin="1\n2\n")

    assert [json.loads(line) for line in found.out.splitlines()] == [
        {"ids": ["a", "b"], "status": 202, "duplicates": 1},
        {"ids": ["c"], "status": 200, "body": '"hi"'},
    ]


def test_an_answer_of_a_function_is_shown_and_an_error_of_it_fails(bridge, sources):
    sources.answers = [Accepted(ids=("a",), status=200, body=b"hello"), Accepted(ids=("b",), status=502, body=b"no")]
    good, bad = bridge("put", "hook", "1"), bridge("put", "hook", "1")

    assert (good.code, good.out, good.err) == (0, "a\nhello\n", "answered 200\n")
    assert (bad.code, bad.out) == (1, "b\nno\n")


def test_a_duplicate_is_told(bridge, sources):
    sources.answers = [Accepted(ids=("a",), duplicates=1)]

    assert bridge("put", "hook", "1").out == "a (duplicate)\n"


def test_what_is_refused_ends_it_with_its_reason_and_how_far_it_got(bridge, sources):
    sources.refusals = [None, None, NotAccepted("not CloudEvents")]
    found = bridge("put", "hook", "-", stdin="1\n2\n3\n4\n")

    assert (found.code, found.out) == (1, "id-1\nid-2\n")
    assert found.err == "bridge: not CloudEvents; 2 events went into hook\n"


def test_what_finds_no_room_is_given_again_in_order(bridge, sources, monkeypatch):
    waited = []
    monkeypatch.setattr("bridge.cli.put_events.time.sleep", waited.append)
    sources.refusals = [None, LaneFull("full"), LaneFull("full"), NotAccepted("busy", status=503), None]
    found = bridge("put", "hook", "-", stdin="1\n2\n3\n")

    assert (found.code, waited) == (0, [1.0, 1.0, 1.0])
    assert datas(sources) == [b"1", b"2", b"3"]


def test_room_is_not_waited_for_for_ever(bridge, sources, monkeypatch):
    monkeypatch.setattr("bridge.cli.put_events.time.sleep", lambda _: None)
    sources.refusals = [LaneFull("too many events wait")] * 100
    found = bridge("put", "hook", "1")

    assert (found.code, found.err) == (1, "bridge: too many events wait\n")


# --- which NAME ------------------------------------------------------------------------------------------------------
def test_a_mapping_that_reads_a_source_means_that_source(bridge, served, sources):
    add(served.world, "telemetry", "sensors")
    bridge("put", "telemetry", "1", "--topic", "t")

    assert sources.given == [("sensors", Given(data=b"1", topic="t"))]


def test_a_mapping_of_the_same_name_that_reads_it_means_it_too(bridge, served, sources):
    add(served.world, "hook", "hook")

    assert bridge("put", "hook", "1").out == "id-1\n"


def test_a_mapping_of_the_same_name_that_nothing_can_be_put_into_is_not_meant(bridge, served, sources):
    add(served.world, "hook", "kafka://main/orders")

    assert bridge("put", "hook", "1").out == "id-1\n"


def test_a_name_of_two_things_must_be_told_apart(bridge, served, sources):
    add(served.world, "hook", "local://clicks?as=kafka")
    found = bridge("put", "hook", "1")

    assert found.code == 2
    assert (
        "hook is both a mapping, which reads local://clicks?as=kafka, and a source: add --mapping or --source"
        in found.err
    )
    assert bridge("put", "hook", "1", "--source").out == "id-1\n"
    assert bridge("put", "hook", "1", "--mapping").out == "1 record put into local://clicks\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("nobody", "1"), "no mapping or source nobody; known are hook, nightly, sensors"),
        (("hook",), "hook is a webhook, which needs data: FILE, - or JSON"),
        (("nightly", "{}"), "nightly is a schedule, which takes no data: its event is the tick's"),
        (("hook", "1", "--topic", "t"), "--topic is for an MQTT source; hook is a webhook"),
        (("sensors", "1", "--query", "t"), "--query is for a webhook; sensors is an MQTT source"),
        (("hook", "1", "--key", "id"), "--key is for an embedded stream; hook is a webhook"),
        (("hook", "1", "--at", "2h"), "--at is for a schedule; hook is a webhook"),
        (("hook", "1", "--header", "nothing"), "nothing is no NAME:VALUE"),
        (("hook", "name=Ada"), "it is not JSON either"),
        (("hook", "1", "--mapping", "--source"), "not both"),
        (("hook", "1", "--mapping"), "no mapping or source hook"),
    ],
)
def test_usage(bridge, sources, arguments, text):
    found = bridge("put", *arguments)

    assert found.code == 2
    assert text in found.err
    assert sources.given == []


def test_a_name_that_a_mapping_and_a_source_have_is_told_once(bridge, served, sources):
    add(served.world, "hook", "hook")

    assert bridge("put", "nobody", "1").err.endswith("known are hook, nightly, sensors\n")

"""Logs: one line an entry, whatever is in it; no secret and no payload ever."""

import io
import json
import logging

import pytest
import structlog

from bridge.util import logs

CANARY = 'canary-7f3d9a"\\quoted'


@pytest.fixture(autouse=True)
def _clean_slate():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logs.forget_secrets()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def entries(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_entry_has_time_level_event_and_logger_first(stream):
    logs.configure(style="json", stream=stream)

    structlog.get_logger("bridge.lanes").info("event_parked", function="hello", attempts=1)

    (entry,) = entries(stream)
    assert list(entry) == ["timestamp", "level", "event", "logger", "function", "attempts"]
    assert (entry["level"], entry["event"], entry["logger"]) == ("info", "event_parked", "bridge.lanes")
    assert entry["timestamp"].endswith("Z")


def test_console_entry_is_one_line_of_words(stream):
    logs.configure(style="console", stream=stream)

    structlog.get_logger("bridge.lanes").warning("event_parked", function="hello", text="two words", n=2)

    assert stream.getvalue().endswith('warning event_parked  function=hello text="two words" n=2\n')
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("style", ["json", "console"])
def test_entries_below_the_level_are_left_out_and_the_level_may_change(stream, style):
    logger = structlog.get_logger("bridge.x")
    logs.configure(level="warning", style=style, stream=stream)
    logger.info("unheard")
    logging.getLogger("lib").info("unheard")
    assert stream.getvalue() == ""

    logs.configure(level="debug", style=style, stream=stream)
    logger.debug("heard")

    assert "heard" in stream.getvalue()


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("text", ["a\nb", "a\rb", "\x1b[2J", "a\u2028b", "a\u0085b", "\u202eevil", "a\x00b", "\x7f"])
def test_control_characters_cannot_start_a_line_or_reach_a_terminal(stream, style, text):
    logs.configure(style=style, stream=stream)

    structlog.get_logger("bridge.x").info(text, value=text, nested={text: [text]})

    line = stream.getvalue()
    assert line.count("\n") == 1
    assert len(line.splitlines()) == 1
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in line.rstrip("\n"))


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_lone_surrogate_is_written_escaped(stream, style):
    logs.configure(style=style, stream=stream)

    structlog.get_logger("bridge.x").info("odd", value="\ud800")

    assert "ud800" in stream.getvalue()


def leak_everywhere(secret: str) -> None:
    logger = structlog.get_logger("bridge.x")
    logger.info("in the event " + secret)
    logger.info("field", value=secret, nested={"a": [f"x{secret}y"], secret: 1}, thing=ValueError(secret))
    logging.getLogger("lib").warning("library said %s", secret)
    try:
        raise RuntimeError(f"oops {secret}")
    except RuntimeError:
        logger.exception("task_failed")
        logging.getLogger("lib").exception("again")


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("secret", [CANARY, "geheim-\u00fc\u2028-line", "tab\tand\nnewline-secret"])
def test_a_registered_secret_is_found_nowhere(stream, style, secret):
    logs.register_secret(secret)
    logs.configure(level="debug", style=style, stream=stream)

    leak_everywhere(secret)

    written = stream.getvalue()
    assert secret not in written
    assert json.dumps(secret)[1:-1] not in written
    assert logs.escape(secret) not in written
    assert "***" in written


def test_each_long_line_of_a_secret_is_masked_too(stream):
    logs.register_secret("-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0\n-----END KEY-----\n")
    logs.configure(style="json", stream=stream)

    structlog.get_logger("bridge.x").info("read", line="MIIEvQIBADANBgkqhkiG9w0", head="-----BEGIN KEY-----")

    (entry,) = entries(stream)
    assert entry["line"] == "***"
    assert entry["head"] == "-----BEGIN KEY-----"


def test_longer_secrets_win_over_their_beginnings(stream):
    logs.register_secret("alpha")
    logs.register_secret(b"alphabet-soup")

    assert logs.mask("alphabet-soup and alpha") == "*** and ***"


def test_values_too_short_to_be_secrets_mask_nothing():
    logs.register_secret("abc")
    logs.register_secret("")

    assert logs.mask("abc abcd") == "abc abcd"


@pytest.mark.parametrize(
    "name", ["authorization", "Authorization", "cookie", "set_cookie", "password", "client_secret", "x_hub_signature",
             "token", "access_token", "api_key", "credentials"],
)  # fmt: skip
def test_fields_named_like_secrets_are_masked_unregistered(stream, name):
    logs.configure(style="json", stream=stream)

    structlog.get_logger("bridge.x").info("seen", **{name: "value-1"}, headers={name: "value-1"})

    (entry,) = entries(stream)
    assert entry[name] == "***"
    assert entry["headers"] == {name: "***"}


def test_payload_bytes_show_only_their_length(stream):
    logs.configure(style="json", stream=stream)

    structlog.get_logger("bridge.x").info("seen", payload=b'{"card":"4111"}', inner=[bytearray(3)])

    (entry,) = entries(stream)
    assert entry["payload"] == "<15 bytes>"
    assert entry["inner"] == ["<3 bytes>"]


def test_a_traceback_is_set_in_on_the_console_so_no_line_of_it_passes_for_an_entry(stream):
    logs.configure(style="console", stream=stream)

    try:
        raise RuntimeError("x\n00:00:00.000 info    all_is_well")
    except RuntimeError:
        structlog.get_logger("bridge.x").exception("task_failed")

    first, *rest = stream.getvalue().splitlines()
    assert "task_failed" in first
    assert rest
    assert all(line.startswith("    | ") for line in rest)


def test_standard_library_records_come_out_as_entries(stream):
    logs.configure(style="json", stream=stream)

    logging.getLogger("some.library").warning("cannot %s", "connect")
    logging.getLogger("some.library").error("bad args %d", "x")

    first, second = entries(stream)
    assert (first["level"], first["event"], first["logger"]) == ("warning", "cannot connect", "some.library")
    assert (second["level"], second["event"]) == ("error", "bad args %d")


def test_huge_and_deep_values_are_cut(stream):
    deep: list = []
    deep.append(deep)
    logs.configure(style="json", stream=stream)

    structlog.get_logger("bridge.x").info("big", text="x" * 1_000_000, many=list(range(10_000)), deep=deep)

    assert len(stream.getvalue()) < 20_000


def test_a_closed_stream_stops_nobody():
    stream = io.StringIO()
    logs.configure(style="json", stream=stream)
    stream.close()

    structlog.get_logger("bridge.x").info("still_here")


@pytest.mark.parametrize(("level", "style"), [("verbose", "json"), ("INFO", "json"), ("info", "xml"), ("", "json")])
def test_unknown_level_or_format_is_refused(level, style):
    with pytest.raises(ValueError, match="one of"):
        logs.configure(level=level, style=style)


def test_auto_is_json_where_nobody_watches(stream):
    logs.configure(stream=stream)

    structlog.get_logger("bridge.x").info("seen")

    assert entries(stream)[0]["event"] == "seen"

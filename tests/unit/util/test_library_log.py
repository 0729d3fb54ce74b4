"""A library's log: each message once in a while, the rest counted."""

import logging

import structlog

from bridge.util.library_log import MESSAGES_MAX, REPEAT_S, LibraryLog, tame


def test_the_librarys_log_passes_each_message_once_in_a_while_and_counts_the_rest():
    now = [0.0]
    handler = LibraryLog(monotonic=lambda: now[0])

    def say(message, *arguments, level=logging.ERROR):
        handler.handle(logging.LogRecord("aiokafka.conn", level, "", 1, message, arguments, None))

    with structlog.testing.capture_logs() as logs:
        for number in range(100):
            say("Unable to connect to %s", number)
        say("Something else")
        say("Joined", level=logging.INFO)
        now[0] = REPEAT_S + 1
        say("Unable to connect to %s", 100)

    assert [(entry["log_level"], entry["event"], entry.get("left_out")) for entry in logs] == [
        ("warning", "Unable to connect to 0", None),
        ("warning", "Something else", None),
        ("debug", "Joined", None),
        ("warning", "Unable to connect to 100", 99),
    ]


def test_how_many_messages_are_remembered_has_a_limit():
    handler = LibraryLog(monotonic=lambda: 0.0)

    with structlog.testing.capture_logs():
        for number in range(1000):
            handler.handle(logging.LogRecord("aiokafka", logging.ERROR, "", 1, f"{number}", (), None))

    assert len(handler._last) <= MESSAGES_MAX


def test_a_library_is_tamed_once():
    logger = logging.getLogger("a_library_of_a_test")

    tame("a_library_of_a_test")
    tame("a_library_of_a_test")

    assert [type(handler) for handler in logger.handlers] == [LibraryLog]
    assert not logger.propagate

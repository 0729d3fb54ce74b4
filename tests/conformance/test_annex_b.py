"""The 33 checks of the behaviour reference, each a test with its number in the name, wherever its world is at home."""

import ast
import re
from pathlib import Path

CHECKS = {
    1: "a handler that raises: 200, Unhandled, errorType, stackTrace",
    2: "DryRun of what the caller may not invoke: 403, nothing runs",
    3: "LogType Tail of 10 KB: 4,096 bytes at most, REPORT at the end",
    4: "an answer of 6,291,556 bytes passes, one more is ResponseSizeTooLarge",
    5: "a timeout: Sandbox.Timedout, another worker, fresh globals",
    6: "reserved concurrency 0: 429 with Reason; ZeroReservedConcurrency, count 0",
    7: "an event whose handler always fails: 0, 60, 180 s, one request id, count 3",
    8: "maximum age 60 and 90: one attempt and two",
    9: "429 for ten minutes, then fine: success",
    10: "dead-letter queue and OnFailure: both",
    11: "a stream, one retry: two calls, RetryAttemptsExhausted, the next batch flows",
    12: "a stream, five throttles: free",
    13: "a stream, two of five records expired: one RecordAgeExceeded of two, a call with three",
    14: "bisecting finds the poison record, halves in order",
    15: "a partial answer naming the second of three: two and three again, the count goes on",
    16: "partial answers that are success",
    17: "partial answers that are the whole batch again",
    18: "SQS, one of ten listed: nine deleted, one back",
    19: "Kafka, two partitions in one poll: one event, two keys, a mark each",
    20: "a group with commits begins at them",
    21: "a filter that names a parent twice: both conditions",
    22: "plain text and a filter for JSON: deleted of SQS, delivered of Kafka",
    23: "exists false of a field with fields below: match",
    24: "a window's answer without state: a failed invocation",
    25: "the 78 filter cases",
    26: "an alias 90/10: 10 % +- 3 %, numeric ExecutedVersion, the alias in the ARN",
    27: "PublishVersion twice without a change: the same version, 201",
    28: "RevisionId of the create answer after activation: 412",
    29: "a policy on the alias, a call unqualified: 403",
    30: "two layers with the same file: the later one",
    31: "a v1 answer with a member too many: 502; v2: 200",
    32: "an update of one variable: the others gone",
    33: "a replay beside live traffic: marks unchanged, events marked, not archived again",
}
TESTS = Path(__file__).parents[1]
_NUMBERED = re.compile(r"\btest_check_\d")
_NAME = re.compile(r"test_check_(\d\d)_\w+")


def checks():
    """Return the number and the function of every numbered test."""
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if _NUMBERED.search(text) else ():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _NUMBERED.match(node.name):
                found = _NAME.fullmatch(node.name)
                assert found, f"{node.name} of {path}: two digits, then words"
                yield int(found[1]), path.relative_to(TESTS), node


def test_every_check_is_a_test():
    there = {number for number, _, _ in checks()}
    assert {number: text for number, text in CHECKS.items() if number not in there} == {}
    assert there <= CHECKS.keys()


def test_no_check_is_left_out_when_it_runs():
    marks = [(str(path), node.name, ast.unparse(mark)) for _, path, node in checks() for mark in node.decorator_list]
    assert [each for each in marks if "skip" in each[2] or "xfail" in each[2]] == []

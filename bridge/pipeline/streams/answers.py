"""Reads what a function answered about single records (ReportBatchItemFailures, semantics 3.7) and its window state."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bridge.core.sources import EventShape
from bridge.pipeline.streams.batch import Batch

_PLAIN: Final = frozenset(
    {b"", b"null", b'""', b"{}", b"[]", b'{"batchItemFailures":[]}', b'{"batchItemFailures": []}'}
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer that is no error comes to."""

    failed: frozenset[object] = frozenset()
    """Identifiers of the records that failed; empty: none did."""
    mistake: str = ""
    """Why the answer counts as an error of the whole batch; empty when it does not."""
    state: bytes | None = None
    """JSON object of the window's state, when one was asked for."""


SUCCESS: Final = Answer()


def read_answer(payload: bytes, batch: Batch, shape: EventShape, *, reports: bool, windowed: bool) -> Answer:
    """Return what an answer means.

    Args:
        payload: the serialised answer of an invocation without an error.
        batch: what was sent.
        shape: how its records are named.
        reports: whether the mapping has ReportBatchItemFailures; else the answer is looked at for a state only.
        windowed: whether it must carry a `state` (semantics 3.11).
    """
    if not windowed and (not reports or payload in _PLAIN):
        return SUCCESS
    try:
        answer = orjson.loads(payload) if payload else None
    except orjson.JSONDecodeError:
        return Answer(mistake="the answer is not JSON")
    state: bytes | None = None
    if windowed:
        if not isinstance(answer, dict) or not isinstance(answer.get("state"), dict):
            return Answer(mistake='the answer has no "state" object, which a tumbling window needs')
        try:
            state = orjson.dumps(answer["state"])
        except orjson.JSONEncodeError:  # it is written less deep than it is read
            return Answer(mistake='the "state" of the answer is nested too deep')
    if not reports:
        return Answer(state=state)
    failed, mistake = _failures(
        answer,
        known=lambda: {shape.identifier(chunk, index) for chunk, index in batch.records()},
        read_identifier=shape.read_identifier,
    )
    return Answer(failed=failed, mistake=mistake, state=state)


def read_queue_answer(payload: bytes, known: Callable[[], AbstractSet[object]]) -> Answer:
    """Return what the answer about a batch of messages means, where the mapping has ReportBatchItemFailures.

    Args:
        payload: the serialised answer of an invocation without an error.
        known: returns the ids of the messages that were sent.
    """
    if payload in _PLAIN:
        return SUCCESS
    try:
        answer = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return Answer(mistake="the answer is not JSON")
    failed, mistake = _failures(
        answer, known=known, read_identifier=lambda item: item if isinstance(item, str) and item else None
    )
    return Answer(failed=failed, mistake=mistake)


def _failures(
    answer: Any, *, known: Callable[[], AbstractSet[object]], read_identifier: Callable[[object], object | None]
) -> tuple[frozenset[object], str]:
    if answer in (None, "", [], {}):
        return frozenset(), ""
    if not isinstance(answer, dict):
        return frozenset(), "the answer is neither empty nor an object"
    items = answer.get("batchItemFailures")
    if items is None:
        return frozenset(), ""
    if not isinstance(items, list):
        return frozenset(), "batchItemFailures is no list"
    named: set[object] = set()
    for item in items:
        if not isinstance(item, dict) or not item.get("itemIdentifier"):
            return frozenset(), "an item of batchItemFailures has no itemIdentifier"
        identifier = read_identifier(item["itemIdentifier"])
        if identifier is None:
            return frozenset(), "an itemIdentifier is none of this source's"
        named.add(identifier)
    if named and named - known():
        return frozenset(), "an itemIdentifier names no record of the batch"
    return frozenset(named), ""

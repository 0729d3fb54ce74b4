"""Filter criteria of one event source mapping: which records it keeps, by the rules of their source.

A pattern is matched against the record's own JSON, in which the data is read as its source reads it:
`docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html` and the filtering page of each source.

| data | asked by an object, `{"value": {"type": ["paid"]}}` | asked by an array, `{"value": ["paid"]}` |
|---|---|---|
| JSON | matched | does not fit |
| other text | does not fit | matched |
| no UTF-8 | does not fit | does not fit |

Where data does not fit, Kafka takes the conditions on it as met: the record passes if the rest of the pattern holds.
SQS, and our own push sources, drop it. Kinesis too, which refuses the array when the mapping is made; DynamoDB's data
is always JSON, so it refuses the array as well. Choices where AWS is silent: "JSON" is an object or an array (a lone
number or string is the text that it is), and a null key or value is JSON's null, which every kind of pattern may ask.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial
from itertools import count
from typing import Any, Final, NamedTuple

import orjson

from bridge.core import limits
from bridge.core.stream import Chunk, RecordFormat
from bridge.pipeline.filters import Explanation, FieldReport, Pattern, PatternInvalid, compile_pattern
from bridge.pipeline.patterns import Leaf

__all__ = ["Criteria", "PatternInvalid", "compile_criteria"]

Document = Callable[[], dict[str, Any]]
"""Gives a record's own JSON, parsed, as the handler sees it."""
Rule = Mapping[str, Leaf]

_NAMES: Final[Mapping[RecordFormat, tuple[str, str]]] = {
    RecordFormat.KAFKA: ("value", "key"),
    RecordFormat.KINESIS: ("data", ""),
    RecordFormat.DYNAMODB: ("", ""),
    RecordFormat.SQS: ("body", ""),
    RecordFormat.BRIDGE: ("body", ""),
}
"""What a pattern calls a record's value and its key; nothing where it cannot ask for them."""
_JSON_ONLY: Final[Mapping[RecordFormat, str]] = {RecordFormat.KINESIS: "data", RecordFormat.DYNAMODB: "dynamodb"}
_ABSENT_WITHOUT_BODY: Final = frozenset({RecordFormat.SQS, RecordFormat.BRIDGE})
"""The event of a request without a body has no member `body`; Kafka's has a null."""


_GENERATED_APART_MAX: Final = 64
"""Alternatives that get generated code of their own; it takes about a millisecond each to make."""


class _Kind(Enum):
    JSON = auto()
    TEXT = auto()
    BYTES = auto()
    NULL = auto()


_KIND_TEXTS: Final = {_Kind.JSON: "is JSON", _Kind.TEXT: "is text, not JSON", _Kind.BYTES: "is not UTF-8"}


class Criteria:
    """The filters of one mapping, compiled; made by `compile_criteria`, safe to use from several threads."""

    __slots__ = ("_alternatives", "_misfit_passes", "_simple", "format", "patterns")

    def __init__(self, patterns: Sequence[Pattern], *, format: RecordFormat) -> None:  # noqa: A002 - the record's
        self.patterns: Final = tuple(patterns)
        self.format: Final = format
        self._misfit_passes = format is RecordFormat.KAFKA
        self._alternatives = _compiled([_split(rule, format) for pattern in patterns for rule in pattern.rules], format)
        self._simple = self._only_json_value()

    def keeps(self, *, key: bytes | None, value: bytes | None, document: Document) -> bool:
        """Tell whether a record passes at least one filter, or there is none.

        Args:
            key: its key, raw; None for null.
            value: its data as the sender sent it (base64 taken off); None for null. Not used for DynamoDB.
            document: gives the record's own JSON, parsed; called at most once, and only by patterns that ask for more
                than the data.
        """
        simple = self._simple
        if simple is not None and value is not None:
            try:
                data = orjson.loads(value)
            except orjson.JSONDecodeError:
                return self._misfit_passes
            if type(data) is dict:
                return simple(data)
        if not self.patterns:
            return True
        record = _Record(key=key, value=value, document=document)
        return any(alternative.holds(record) for alternative in self._alternatives)

    def kept(self, chunk: Chunk) -> list[int]:
        """Return the indices of the records of a chunk that `keeps` keeps, in order; quicker than asking one by one."""
        simple = self._simple
        if not self.patterns:
            return list(range(len(chunk)))
        kept: list[int] = []
        for index, value in enumerate(chunk.values):
            if simple is not None and value is not None:
                try:
                    data = orjson.loads(value)
                except orjson.JSONDecodeError:
                    if self._misfit_passes:
                        kept.append(index)
                    continue
                if type(data) is dict:
                    if simple(data):
                        kept.append(index)
                    continue
            if self.keeps(key=chunk.keys[index], value=value, document=partial(orjson.loads, chunk.fragments[index])):
                kept.append(index)
        return kept

    def explain(self, *, key: bytes | None, value: bytes | None, document: Document) -> Explanation:
        """Return what each field of each filter wanted and found; the same verdict as that of `keeps`."""
        if not self.patterns:
            return Explanation(matched=True, fields=(), note="no filter: every record passes")
        record = _Record(key=key, value=value, document=document)
        fields: list[FieldReport] = []
        notes: list[str] = []
        matched = False
        numbers = count()
        for pattern in self.patterns:
            for rule in pattern.rules:
                alternative = _of_split(_split(rule, self.format), self.format, is_generated=False)
                told = alternative.explain(record, alternative=next(numbers))
                matched = matched or told.matched
                fields += told.fields
                notes += [told.note] if told.note else []
        return Explanation(matched=matched, fields=tuple(fields), note="" if matched or not notes else notes[0])

    def _only_json_value(self) -> Callable[[object], bool] | None:
        """Return the matcher of the value where no filter asks for anything else: the common case, without a detour."""
        if len(self._alternatives) != 1:
            return None
        only = self._alternatives[0]
        if only.value is None or only.value.inner is None or only.key is not None or only.document is not None:
            return None
        return only.value.inner.matches


def compile_criteria(patterns: Sequence[str], *, format: RecordFormat) -> Criteria:  # noqa: A002 - the record's
    """Compile the filters of a mapping, of which a record must pass one.

    Args:
        patterns: the JSON texts, at most `limits.FILTERS_MAX`; none keeps every record.
        format: how the source's data is read.

    Raises:
        PatternInvalid: one is invalid, asks Kinesis or DynamoDB data for plain text, or there are too many.
    """
    if len(patterns) > limits.FILTERS_MAX:
        raise PatternInvalid(f"{len(patterns)} filters, at most {limits.FILTERS_MAX} are allowed")
    compiled: list[Pattern] = []
    for number, text in enumerate(patterns, 1):
        try:
            pattern = compile_pattern(text)
            _check_data_is_asked_as_json(pattern, format)
        except PatternInvalid as error:
            raise PatternInvalid(f"filter {number}: {error}" if len(patterns) > 1 else str(error)) from error
        compiled.append(pattern)
    return Criteria(compiled, format=format)


def _check_data_is_asked_as_json(pattern: Pattern, record_format: RecordFormat) -> None:
    name = _JSON_ONLY.get(record_format)
    if any(path == name for rule in pattern.rules for path, _ in rule):
        raise PatternInvalid(
            f'{name}: {record_format} data is JSON; ask for its members, as in {{"{name}": {{"a": [1]}}}}'
        )


# --- one record -----------------------------------------------------------------------------------


class _Record:
    """A record while it is judged: each part is read at most once, when it is asked for."""

    __slots__ = ("_document", "_give_document", "_key", "_key_raw", "_value", "_value_raw")

    def __init__(self, *, key: bytes | None, value: bytes | None, document: Document) -> None:
        self._key_raw, self._value_raw, self._give_document = key, value, document
        self._key: tuple[_Kind, object] | None = None
        self._value: tuple[_Kind, object] | None = None
        self._document: dict[str, Any] | None = None

    def key(self) -> tuple[_Kind, object]:
        if self._key is None:
            self._key = _read(self._key_raw)
        return self._key

    def value(self) -> tuple[_Kind, object]:
        if self._value is None:
            self._value = _read(self._value_raw)
        return self._value

    def document(self) -> dict[str, Any]:
        if self._document is None:
            self._document = self._give_document()
        return self._document


def _read(raw: bytes | None) -> tuple[_Kind, object]:
    """Return data with its kind: an object or an array is JSON, every other text is text."""
    if raw is None:
        return _Kind.NULL, None
    if raw.lstrip(b" \t\r\n")[:1] in (b"{", b"["):
        try:
            return _Kind.JSON, orjson.loads(raw)
        except orjson.JSONDecodeError:
            pass
    try:
        return _Kind.TEXT, raw.decode()
    except UnicodeDecodeError:
        return _Kind.BYTES, raw


# --- one alternative ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _DataPart:
    """What one alternative asks of the record's key or value."""

    name: str
    is_json: bool
    """Asked by an object; else by an array."""
    outer: Pattern
    """Over `{name: data}`."""
    inner: Pattern | None
    """The same over the data itself, where that is an object: one step less."""
    misfit_passes: bool
    absent_for_null: bool

    def fits(self, kind: _Kind) -> bool:
        return kind is _Kind.NULL or kind is (_Kind.JSON if self.is_json else _Kind.TEXT)

    def holds(self, data: tuple[_Kind, object]) -> bool:
        kind, value = data
        if not self.fits(kind):
            return self.misfit_passes
        if self.inner is not None and type(value) is dict:
            return self.inner.matches(value)
        return self.outer.matches(self._wrapped(value))

    def explain(self, data: tuple[_Kind, object]) -> Explanation:
        kind, value = data
        if self.fits(kind):
            return self.outer.explain(self._wrapped(value))
        asked = "asks for JSON" if self.is_json else "asks for plain text"
        passes = "so this is not judged" if self.misfit_passes else "so this cannot match"
        note = f"the {self.name} {_KIND_TEXTS[kind]} and the pattern {asked}, {passes}"
        told = self.outer.explain({})
        fields = tuple(replace(field, matched=self.misfit_passes, note=note) for field in told.fields)
        return Explanation(matched=self.misfit_passes, fields=fields)

    def _wrapped(self, value: object) -> dict[str, object]:
        return {} if value is None and self.absent_for_null else {self.name: value}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Alternative:
    """One way to pass: all of its parts must hold. A part none of whose fields are asked for is None.

    Parts may be judged apart, since fields of different members never lie in one array.
    """

    value: _DataPart | None
    key: _DataPart | None
    document: Pattern | None
    is_kinesis: bool

    def holds(self, record: _Record) -> bool:
        if self.value is not None and not self.value.holds(record.value()):
            return False
        if self.key is not None and not self.key.holds(record.key()):
            return False
        return self.document is None or self.document.matches(self._members(record))

    def explain(self, record: _Record, *, alternative: int) -> Explanation:
        told = [part.explain(data()) for part, data in ((self.value, record.value), (self.key, record.key)) if part]
        if self.document is not None:
            told.append(self.document.explain(self._members(record)))
        fields = sorted((field for each in told for field in each.fields), key=lambda field: field.path)
        return Explanation(
            matched=all(each.matched for each in told),
            fields=tuple(replace(field, alternative=alternative) for field in fields),
            note=next((each.note for each in told if each.note), ""),
        )

    def _members(self, record: _Record) -> dict[str, Any]:
        """Return what is filtered besides data: for Kinesis also what the event has one level down (`partitionKey`)."""
        document = record.document()
        inner = document.get("kinesis") if self.is_kinesis else None
        return {**document, **inner} if isinstance(inner, dict) else document


class _Split(NamedTuple):
    """The fields of one alternative by what they ask for; parts may be judged apart, as `_Alternative` says."""

    value: Rule
    key: Rule
    document: Rule


def _split(rule: Sequence[tuple[str, Leaf]], record_format: RecordFormat) -> _Split:
    value_name, key_name = _NAMES[record_format]
    value: dict[str, Leaf] = {}
    key: dict[str, Leaf] = {}
    document: dict[str, Leaf] = {}
    for path, leaf in rule:
        top = path.partition(".")[0]
        part = value if top and top == value_name else key if top and top == key_name else document
        part[path] = leaf
    return _Split(value, key, document)


def _alternative(
    record_format: RecordFormat,
    *,
    value: Sequence[Rule] = (),
    key: Sequence[Rule] = (),
    document: Sequence[Rule] = (),
    is_generated: bool = True,
) -> _Alternative:
    value_name, key_name = _NAMES[record_format]
    return _Alternative(
        value=_data_part(value_name, value, record_format, is_generated=is_generated) if value else None,
        key=_data_part(key_name, key, record_format, is_generated=is_generated) if key else None,
        document=Pattern("", document, is_generated=is_generated) if document else None,
        is_kinesis=record_format is RecordFormat.KINESIS,
    )


def _of_split(split: _Split, record_format: RecordFormat, *, is_generated: bool) -> _Alternative:
    value, key, document = ([part] if part else [] for part in split)
    return _alternative(record_format, value=value, key=key, document=document, is_generated=is_generated)


def _data_part(name: str, rules: Sequence[Rule], record_format: RecordFormat, *, is_generated: bool) -> _DataPart:
    start = name + "."
    paths = [path for rule in rules for path in rule]
    stripped = [{path.removeprefix(start): leaf for path, leaf in rule.items()} for rule in rules]
    has_inner = all(path.startswith(start) for path in paths)
    return _DataPart(
        name=name,
        is_json=any(path.startswith(start) for path in paths),
        outer=Pattern("", rules, is_generated=is_generated and not has_inner),
        inner=Pattern("", stripped, is_generated=is_generated) if has_inner else None,
        misfit_passes=record_format is RecordFormat.KAFKA,
        absent_for_null=record_format in _ABSENT_WITHOUT_BODY,
    )


def _compiled(splits: Sequence[_Split], record_format: RecordFormat) -> list[_Alternative]:
    """Join the alternatives that ask for nothing but JSON data into one matcher, and those that ask for no data."""
    start = _NAMES[record_format][0] + "."
    values: list[Rule] = []
    documents: list[Rule] = []
    others: list[_Split] = []
    for split in splits:
        if not split.document and not split.key and all(path.startswith(start) for path in split.value):
            values.append(split.value)
        elif not split.value and not split.key:
            documents.append(split.document)
        else:
            others.append(split)
    alternatives: list[_Alternative] = []
    if values:
        alternatives.append(_alternative(record_format, value=values))
    if documents:
        alternatives.append(_alternative(record_format, document=documents))
    is_generated = len(others) <= _GENERATED_APART_MAX
    return alternatives + [_of_split(split, record_format, is_generated=is_generated) for split in others]

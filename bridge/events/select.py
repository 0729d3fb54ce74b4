"""The select list of an IoT rule: parsed once, then it makes events of messages (semantics 4.3; pure).

A list names what the event has: `*` (the payload's members), a field `a.b`, `topic()`, `topic(2)`, `clientid()`,
`timestamp()`, `encode(*, 'base64')` and `mqttproperties`, each but `*` with `AS name` if it likes. What is taken from a
payload keeps its bytes: a number of thirty digits stays one. A field that is not there is left out. Of two of one name
the list's own wins over that of `*`.
"""

import json
import re
from base64 import b64encode
from collections.abc import Callable
from typing import Final, NamedTuple

import orjson

from bridge.events.mqtt import Message, data_event, properties_json

NO_CLIENT: Final = "n/a"
"""What `clientid()` is where it is not known, in AWS's words. Brokers do not tell subscribers who published."""
CLIENT_PROPERTY: Final = "clientid"
"""The user property in which a publisher, or a broker's extension, may tell it."""
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<word>[A-Za-z_][A-Za-z0-9_]*)|\"(?P<quoted>[^\"]+)\"|(?P<text>'[^']*')|(?P<number>\d+)|(?P<mark>[*,.()]))"
)
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_FUNCTIONS: Final = ("topic", "clientid", "timestamp", "encode")
_SCANNER: Final = json.JSONDecoder(parse_int=str, parse_float=str)
"""Finds where a value ends; numbers are not looked at."""


class SelectMistake(ValueError):
    """A list that cannot be understood; tells where."""

    def __init__(self, text: str, at: int) -> None:
        super().__init__(f"{text} (character {at + 1})")


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


class _Column(NamedTuple):
    name: bytes
    """As a JSON member: quoted, with its colon."""
    key: str
    value: Callable[[Message], bytes] | None
    """Returns nothing where the message has none. None: a field of the payload."""
    path: tuple[str, ...] = ()


class Select:
    """A parsed list; call it with a message (`mqtt.MessageShape`)."""

    def __init__(self, *, takes_all: bool, columns: tuple[_Column, ...]) -> None:
        self._takes_all = takes_all
        self._columns = columns
        self._keys = frozenset(column.key for column in columns)
        self._has_fields = any(column.value is None for column in columns)
        self._reads = takes_all or self._has_fields

    def __call__(self, message: Message) -> tuple[bytes, bool]:
        """Return the event, and whether the payload was JSON, as far as that matters to the list."""
        if not self._reads:
            return self._built(message, None), True
        payload = message.payload
        try:
            parsed = orjson.loads(payload)
            if self._takes_all and not self._columns:
                return payload, True
            if not isinstance(parsed, dict):
                return self._built(message, None, data=payload if self._takes_all else None), True
            if self._takes_all and not self._has_fields and self._keys.isdisjoint(parsed):
                return self._behind(payload, message), True
            return self._built(message, members(payload.decode())), True
        except (orjson.JSONDecodeError, RecursionError):  # no JSON, or deeper than Python follows
            return self._built(message, None, data=payload), False

    def _behind(self, payload: bytes, message: Message) -> bytes:
        """Return the payload's object with the columns behind its members: most lists are `*` and a function or two."""
        opened = payload.strip()[:-1]
        added = self._built(message, None)[1:]
        separator = b"," if opened[1:].strip() and len(added) > 1 else b""
        return opened + separator + added

    def _built(self, message: Message, found: dict[str, str] | None, *, data: bytes | None = None) -> bytes:
        pieces = list[bytes]()
        if data is not None and "data" not in self._keys:
            pieces.append(data_event(data)[1:-1])
        if found is not None and self._takes_all:
            pieces += (
                b"%b:%b" % (orjson.dumps(key), raw.encode()) for key, raw in found.items() if key not in self._keys
            )
        for column in self._columns:
            value = column.value(message) if column.value is not None else _at(found, column.path)
            if value:
                pieces.append(column.name + value)
        return b"{%b}" % b",".join(pieces)


def members(text: str) -> dict[str, str] | None:
    """Return the members of a valid JSON object as they are written, None for another value. The last of a name counts.

    Raises:
        RecursionError: deeper than Python follows.
    """
    at = _skip(text, 0)
    if text[at] != "{":
        return None
    found: dict[str, str] = {}
    at = _skip(text, at + 1)
    while text[at] != "}":
        key, at = json.decoder.scanstring(text, at + 1, True)  # type: ignore[attr-defined]
        begin = _skip(text, _skip(text, at) + 1)
        _, at = _SCANNER.raw_decode(text, begin)
        found[key] = text[begin:at]
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None, "it matches nothing at all too"
    return found.end()


def _at(found: dict[str, str] | None, path: tuple[str, ...]) -> bytes:
    """Return the text of the value at a path, nothing where there is none."""
    for name in path[:-1]:
        found = members(found[name]) if found is not None and name in found else None
    return b"" if found is None else found.get(path[-1], "").encode()


# --- parsing ----------------------------------------------------------------------------------------


def parse_select(text: str) -> Select:
    """Return a list that makes events.

    Raises:
        SelectMistake: it is none; says what is wrong, and at which character.
    """
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._next = 0

    def parse(self) -> Select:
        takes_all, columns = False, list[_Column]()
        while True:
            token = self._peek()
            if token.kind == "mark" and token.text == "*":
                self._take()
                if takes_all:
                    raise SelectMistake("* is there twice", token.at)
                takes_all = True
                self._ends_column("* has no AS")
            else:
                column = self._column(token)
                if any(other.key == column.key for other in columns):
                    raise SelectMistake(f"the name {column.key} is there twice; write AS and another one", token.at)
                columns.append(column)
            if self._peek().kind == "end":
                return Select(takes_all=takes_all, columns=tuple(columns))
            self._expect(",")

    def _column(self, token: _Token) -> _Column:
        if token.kind not in ("word", "quoted"):
            self._refuse("expected *, a field or a function")
        self._take()
        if token.kind == "word" and token.text.lower() == "select" and self._peek().kind in ("word", "mark"):
            raise SelectMistake("write the list alone, without SELECT and FROM", token.at)
        path: tuple[str, ...] = ()
        value: Callable[[Message], bytes] | None
        if token.kind == "word" and self._peek().text == "(" and self._peek().kind == "mark":
            name, value = token.text.lower(), self._function(token)
        elif token.kind == "word" and token.text == "mqttproperties":
            name, value = token.text, _properties
        else:
            path = (token.text, *self._rest_of_path())
            name, value = path[-1], None
        if self._peek().kind == "word" and self._peek().text.lower() == "as":
            self._take()
            named = self._take()
            if named.kind not in ("word", "quoted"):
                raise SelectMistake("AS wants a name", named.at)
            name = named.text
        self._ends_column("expected AS name, a comma or the end")
        return _Column(name=orjson.dumps(name) + b":", key=name, value=value, path=path)

    def _rest_of_path(self) -> tuple[str, ...]:
        path = list[str]()
        while self._peek().kind == "mark" and self._peek().text == ".":
            self._take()
            token = self._take()
            if token.kind not in ("word", "quoted"):
                raise SelectMistake("a field's name was expected behind the dot", token.at)
            path.append(token.text)
        return tuple(path)

    def _function(self, token: _Token) -> Callable[[Message], bytes]:
        name = token.text.lower()
        if name not in _FUNCTIONS:
            raise SelectMistake(
                f"no function {token.text}(); there are topic(), topic(n), clientid(), timestamp(), encode()", token.at
            )
        self._expect("(")
        if name == "encode":
            self._expect("*")
            self._expect(",")
            encoding = self._take()
            if encoding.kind != "text" or encoding.text.lower() != "'base64'":
                raise SelectMistake("encode knows 'base64' only", encoding.at)
            self._expect(")")
            return _encoded
        level = 0
        if name == "topic" and self._peek().kind == "number":
            number = self._take()
            level = int(number.text) if len(number.text) < 6 else 0
            if level < 1:
                raise SelectMistake("topic(n) counts levels from 1", number.at)
        self._expect(")")
        if name == "topic":
            return _topic if not level else _topic_level(level)
        return _client_id if name == "clientid" else _timestamp

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        if token.kind != "end":
            self._next += 1
        return token

    def _expect(self, mark: str) -> None:
        token = self._take()
        if token.kind != "mark" or token.text != mark:
            raise SelectMistake(f"expected {mark} {_before(token)}", token.at)

    def _ends_column(self, text: str) -> None:
        token = self._peek()
        if token.kind != "end" and (token.kind != "mark" or token.text != ","):
            raise SelectMistake(f"{text} {_before(token)}", token.at)

    def _refuse(self, text: str) -> None:
        token = self._peek()
        raise SelectMistake(f"{text} {_before(token)}", token.at)


def _before(token: _Token) -> str:
    return "at the end" if token.kind == "end" else f"before {token.text}"


def _tokens(text: str) -> "list[_Token]":
    found, at = list[_Token](), 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise SelectMistake(f"{text[at]!r} has no meaning here", at)
        kind = match.lastgroup or ""
        found.append(_Token(kind, match[kind], match.start(kind)))
        at = match.end()
    return [*found, _Token("end", "", end)]


# --- functions --------------------------------------------------------------------------------------


def _topic(message: Message) -> bytes:
    return orjson.dumps(message.topic)


def _topic_level(level: int) -> Callable[[Message], bytes]:
    def value(message: Message) -> bytes:
        levels = message.topic.split("/")
        return orjson.dumps(levels[level - 1]) if level <= len(levels) else b""

    return value


def _client_id(message: Message) -> bytes:
    return orjson.dumps(next((v for k, v in message.properties.user if k == CLIENT_PROPERTY), NO_CLIENT))


def _timestamp(message: Message) -> bytes:
    return b"%d" % message.received_ms


def _encoded(message: Message) -> bytes:
    return b'"%b"' % b64encode(message.payload)


def _properties(message: Message) -> bytes:
    return properties_json(message.properties)

"""JSON as AWS's own Python runtime does it (awslambdaric 4.2.2, which uses simplejson); child side.

Beyond the standard library's encoder: Decimal becomes a number, a named tuple an object, bytes a string.
Anything the fast encoder treats the same way goes through it; the rest takes the slow way below.
"""

import decimal
import json
import json.encoder
from collections.abc import Callable
from typing import Any, Final

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_STRINGS: Final = frozenset({str})
_DEPTH_MAX: Final = 900
_OPENERS: Final = '[{"tfn-0123456789'


def _refuse(text: str) -> Any:
    raise ValueError(f"Out of range float values are not JSON compliant: {text}")


_decoder = json.JSONDecoder(parse_constant=_refuse)
_scan: Callable[[str, int], tuple[Any, int]] = vars(_decoder)["scan_once"]  # C, and without a type


def loads(text: str) -> Any:
    """Decode one JSON text; integers of any size stay exact.

    Raises:
        ValueError: not JSON.
    """
    if text and text[0] in _OPENERS:
        try:
            value, end = _scan(text, 0)
        except StopIteration:
            return _decoder.decode(text)
        if end == len(text):
            return value
    return _decoder.decode(text)


def make_encoder(*, ascii_only: bool) -> Callable[[Any], str]:
    """Return `dumps` for this runtime: ASCII only before python3.12, as AWS has it."""
    quote = json.encoder.encode_basestring_ascii if ascii_only else json.encoder.encode_basestring
    slow = _Slow(quote)
    fast = _fast_encoder(quote, ascii_only=ascii_only)

    def dumps(value: Any) -> str:
        kind = type(value)
        if kind is dict:
            # A flat object with plain values, which most answers are, is seen through without a loop in Python.
            if _STRINGS.issuperset(map(type, value)) and _SCALARS.issuperset(map(type, value.values())):
                return fast(value)
            return fast(value) if _is_plain(value) else slow.encode(value)
        if kind is list:
            return fast(value) if _is_plain(value) else slow.encode(value)
        if kind is str:
            return quote(value)
        return fast(value) if kind in _SCALARS else slow.encode(value)

    return dumps


def _fast_encoder(quote: Callable[[str], str], *, ascii_only: bool) -> Callable[[Any], str]:
    general = json.JSONEncoder(ensure_ascii=ascii_only)
    make: Any = vars(json.encoder)["c_make_encoder"]  # None without the C module
    if make is None:
        return general.encode
    # One encoder for all calls: JSONEncoder.encode builds a new one each time (a third of its cost for 200 bytes).
    encode = make(None, general.default, quote, None, ": ", ", ", False, False, True)
    join = "".join
    return lambda value: join(encode(value, 0))


def _is_plain(value: Any) -> bool:
    """Tell whether the standard encoder writes `value` as simplejson would; no for cycles, too."""
    seen: set[int] = set()
    pending = [value]
    while pending:
        item = pending.pop()
        kind = type(item)
        if kind in _SCALARS:
            continue
        if id(item) in seen:
            return False
        seen.add(id(item))
        if kind is dict:
            for key in item:
                if type(key) is not str:
                    return False
            pending.extend(item.values())
        elif kind is list or kind is tuple:
            pending.extend(item)
        else:
            return False
    return len(seen) < _DEPTH_MAX or _depth_is_fine(value)


def _depth_is_fine(value: Any) -> bool:
    level = [value]
    for _ in range(_DEPTH_MAX):
        below: list[Any] = []
        for item in level:
            if type(item) is dict:
                below.extend(v for v in item.values() if type(v) not in _SCALARS)
            else:
                below.extend(v for v in item if type(v) not in _SCALARS)
        if not below:
            return True
        level = below
    return False


class _Slow:
    def __init__(self, quote: Callable[[str], str]) -> None:
        self._quote = quote

    def encode(self, value: Any) -> str:
        """Encode anything simplejson would.

        Raises:
            TypeError, ValueError, RecursionError: with simplejson's words.
        """
        parts: list[str] = []
        self._write(value, parts.append, set())
        return "".join(parts)

    def _write(self, value: Any, write: Callable[[str], None], above: set[int]) -> None:
        if isinstance(value, str):
            write(self._quote(value))
        elif isinstance(value, bytes):
            write(self._quote(value.decode()))
        elif value is None or value is True or value is False or isinstance(value, (int, float, decimal.Decimal)):
            write(_number(value))
        else:
            self._write_container(value, write, above)

    def _write_container(self, value: Any, write: Callable[[str], None], above: set[int]) -> None:
        as_dict = getattr(value, "_asdict", None) if isinstance(value, tuple) else None
        if not isinstance(value, (dict, list, tuple)):
            raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
        if id(value) in above:
            raise ValueError("Circular reference detected")
        above.add(id(value))
        if as_dict is not None or isinstance(value, dict):
            items: dict[Any, Any] = dict(value) if as_dict is None else as_dict()
            separator = "{"
            for key, item in items.items():
                write(f"{separator}{self._quote(_key(key))}: ")
                separator = ", "
                self._write(item, write, above)
            write("}" if separator == ", " else "{}")
        else:
            separator = "["
            for item in value:
                write(separator)
                separator = ", "
                self._write(item, write, above)
            write("]" if separator == ", " else "[]")
        above.discard(id(value))


def _number(value: Any) -> str:
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, decimal.Decimal):
        return "NaN" if value.is_nan() else str(value)
    return json.dumps(float(value))


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bytes):
        return key.decode()
    if key is None or isinstance(key, (bool, int, float)):
        return _number(key)
    raise TypeError(f"keys must be str, int, float, bool or None, not {type(key).__name__}")

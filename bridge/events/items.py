"""Plain JSON as DynamoDB items, and as the stream records of their changes (pure).

For embedded streams and generated events: on AWS the service itself makes such records, of a table's changes.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from pybase64 import b64encode

from bridge.events.bodies import is_too_deep
from bridge.events.dynamodb import EVENT_SOURCE

DEPTH_MAX: Final = 32
"""Of an item's nesting (the service's own limit)."""
KEY_DEFAULT: Final = "id"
"""The attribute that is an item's key where nothing says another."""
OTHER: Final = "value"
"""The attribute that holds what is no JSON object."""
IMAGES: Final = ("NewImage", "OldImage")
_YEAR_10000: Final = 253_402_300_800
"""Epoch seconds: the first moment that no calendar of ours holds."""


class Digits(str):
    """A JSON number as it was written: an item's numbers have up to 38 digits, which no float keeps."""

    __slots__ = ()


class NotAnItem(ValueError):
    """JSON that no item can hold."""


def parse_plain(text: bytes) -> Any:
    """Return parsed JSON whose numbers are `Digits`.

    Raises:
        NotAnItem: not JSON.
    """
    try:
        orjson.loads(text)  # stricter: UTF-8, no NaN, no lone surrogates
        return json.loads(text, parse_int=Digits, parse_float=Digits)
    except (ValueError, RecursionError) as error:
        raise NotAnItem(f"is not JSON: {error}") from error


def attribute(value: Any, *, depth: int = DEPTH_MAX) -> dict[str, Any]:
    """Return a JSON value as an attribute: S, N, BOOL, NULL, L or M; sets and binary have no plain form.

    Args:
        value: parsed; numbers best as `Digits`.
        depth: how much deeper it may be nested.

    Raises:
        NotAnItem: it is nested deeper.
    """
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case int() | float() | Digits():
            return {"N": str(value)}
        case str():
            return {"S": value}
    if not depth:
        raise NotAnItem(f"is nested more than {DEPTH_MAX} deep")
    if isinstance(value, Mapping):
        return {"M": {name: attribute(each, depth=depth - 1) for name, each in value.items()}}
    return {"L": [attribute(each, depth=depth - 1) for each in value]}


def item(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object as an item; raises NotAnItem."""
    return {name: attribute(value) for name, value in document.items()}


def plain(value: Mapping[str, Any]) -> Any:
    """Return an attribute as JSON: numbers as such, sets as lists, binary as its base64."""
    ((kind, held),) = value.items()
    match kind:
        case "N":
            return orjson.loads(held)
        case "NULL":
            return None
        case "M":
            return {name: plain(each) for name, each in held.items()}
        case "L":
            return [plain(each) for each in held]
        case "NS":
            return [orjson.loads(each) for each in held]
    return held


def change(value: bytes | None, *, key: bytes | None) -> dict[str, Any]:
    """Return the stream record that a put record stands for, as far as it says; `filled` adds the rest.

    A stream record is taken as it is, unless it is nested too deep to be written again. Any other JSON object is a new
    item; no value is a removed one; anything else is a new item with the attribute `value`. A new item's key is `id`,
    or else the attribute that holds `key`.

    Args:
        value: as it was put.
        key: likewise.
    """
    if value is None:
        return {"eventName": "REMOVE", "dynamodb": {"Keys": _keys({}, key)}}
    try:
        document = parse_plain(value)
        is_record = isinstance(document, dict) and isinstance(document.get("dynamodb"), dict)
        if is_record and not is_too_deep(value, lambda _: document):
            whole: dict[str, Any] = orjson.loads(value)
            return whole
        new = item(document) if isinstance(document, dict) else {OTHER: attribute(document)}
    except NotAnItem:
        new = {OTHER: _raw(value)}
    return {"eventName": "INSERT", "dynamodb": {"Keys": _keys(new, key), "NewImage": new}}


def keyed_change(value: bytes, names: Sequence[str]) -> dict[str, Any]:
    """Return the stream record of a new item whose key is these attributes.

    Raises:
        NotAnItem: it is no JSON object, or has no such attribute.
    """
    document = parse_plain(value)
    if not isinstance(document, dict):
        raise NotAnItem("is no JSON object")
    new = item(document)
    for name in names:
        if name not in new:
            raise NotAnItem(f"has no {name}, which is its key")
    return {"eventName": "INSERT", "dynamodb": {"Keys": {name: new[name] for name in names}, "NewImage": new}}


def filled(
    record: Mapping[str, Any], *, event_id: str, sequence_number: str, time_ms: int, region: str
) -> dict[str, Any]:
    """Return a stream record with all that AWS's have, but `eventSourceARN`; what it says itself stays.

    Args:
        record: with an object `dynamodb`, as `change` returns it.
        event_id: 32 hexadecimal digits.
        sequence_number: wins over the record's own: its place is where it stands in this stream.
        time_ms: when it was put, epoch milliseconds.
        region: of the table; wins too.
    """
    told: Mapping[str, Any] = record["dynamodb"]
    images = {name: told[name] for name in IMAGES if name in told}
    changed = {
        "ApproximateCreationDateTime": created if (created := _time(told)) is not None else time_ms // 1000,
        "Keys": told.get("Keys", {}),
        **images,
        "SequenceNumber": sequence_number,
        "SizeBytes": told.get("SizeBytes", item_bytes(told.get("Keys")) + sum(map(item_bytes, images.values()))),
        "StreamViewType": told.get("StreamViewType", "NEW_AND_OLD_IMAGES"),
    }
    made = {
        "eventID": record.get("eventID", event_id),
        "eventName": record.get("eventName", _name(images)),
        "eventVersion": record.get("eventVersion", "1.1"),
        "eventSource": EVENT_SOURCE,
        "awsRegion": region,
        "dynamodb": changed,
    }
    return made | {"userIdentity": record["userIdentity"]} if "userIdentity" in record else made


def item_bytes(value: Any) -> int:
    """Return about what an item weighs (the service's own rule): names and values, a number two digits a byte."""
    if not isinstance(value, Mapping):
        return 0
    return sum(len(str(name).encode("utf-8", "replace")) + _attribute_bytes(each) for name, each in value.items())


def _attribute_bytes(value: Any) -> int:
    if not isinstance(value, Mapping) or len(value) != 1:
        return 0
    ((kind, held),) = value.items()
    match kind:
        case "S":
            return len(str(held).encode("utf-8", "replace"))
        case "N":
            return len(str(held)) // 2 + 1
        case "B":
            return len(str(held)) * 3 // 4
        case "M":
            return 3 + item_bytes(held)
        case "L" if isinstance(held, list):
            return 3 + sum(1 + _attribute_bytes(each) for each in held)
        case "SS" | "NS" | "BS" if isinstance(held, list):
            return sum(_attribute_bytes({kind[0]: each}) for each in held)
    return 1


def _keys(new: Mapping[str, Any], key: bytes | None) -> dict[str, Any]:
    """Return an item's key: that attribute of `new`, or one that holds `key`, made up where `new` has none."""
    held = None if key is None else key.decode("utf-8", "replace")
    for name in (KEY_DEFAULT, *new):
        if name in new and held in (None, new[name].get("S"), new[name].get("N")):
            return {name: new[name]}
        if held is None:
            break
    return {} if held is None else {KEY_DEFAULT: {"S": held}}


def _raw(value: bytes) -> dict[str, Any]:
    try:
        return {"S": value.decode()}
    except UnicodeDecodeError:
        return {"B": b64encode(value).decode()}


def _time(told: Mapping[str, Any]) -> float | int | None:
    created = told.get("ApproximateCreationDateTime")
    if not isinstance(created, int | float) or isinstance(created, bool):
        return None
    return created if 0 <= created < _YEAR_10000 else None


def _name(images: Mapping[str, Any]) -> str:
    if "OldImage" in images:
        return "MODIFY" if "NewImage" in images else "REMOVE"
    return "INSERT" if "NewImage" in images else "MODIFY"

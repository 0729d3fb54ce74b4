"""CloudEvents 1.0 as they come over HTTP (binary, structured, batched), each as the event of one invocation (pure).

Shapes: github.com/cloudevents/spec, bindings/http-protocol-binding.md and formats/json-format.md of 1.0.2. AWS has no
such source. The function's event is the CloudEvent in the JSON format, whatever mode it came in: attributes are
members, the data is `data` (JSON, or text where the content type is text) or `data_base64` (everything else).

Without `ce-` headers plain `application/json` is taken as structured, a list as a batch.

A structured event, also one of a batch, is kept byte for byte. Of a binary one the data is, where it is JSON. Names of
extensions are not judged: what one sender calls its own is no reason to lose an event.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import orjson

from bridge.events.bodies import (
    ReadEvent,
    Unreadable,
    given_text,
    needed_list,
    needed_object,
    needed_text,
    raw_items,
    read_json,
    read_object,
    shown,
    single_header,
)
from bridge.events.http import is_text_type

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
SPEC_VERSION: Final = "1.0"

_FORMATTED: Final = "application/cloudevents"
_PREFIX: Final = b"ce-"
_REQUIRED: Final = ("id", "source", "type")
_TEXTS: Final = ("datacontenttype", "dataschema", "subject")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)\Z", re.ASCII)
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"\Z', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


def read_cloudevents(headers: Sequence[tuple[bytes, bytes]], body: bytes) -> list[ReadEvent]:
    """Return the events of a request, in their order; none of an empty batch.

    The delivery id is source and id, which together name an event (spec 1.0.2, "id").

    Args:
        headers: lower-case names.
        body: the request's, whole.

    Raises:
        Unreadable: not CloudEvents of version 1.0, or an attribute is missing or of the wrong form.
    """
    content_type = single_header(headers, b"content-type")
    media_type = _media_type(content_type)
    if is_batch(headers, body):
        return _batch(body)
    if media_type == STRUCTURED or _is_bare(headers, media_type):
        event = needed_object(read_json(body), "a CloudEvent")
        return [ReadEvent(payload=body.strip(), delivery_id=_checked(event))]
    if media_type.startswith(_FORMATTED):
        raise Unreadable(f"content type {shown(media_type)} is not read; {STRUCTURED} and {BATCH} are")
    return [_binary(headers, content_type=content_type, body=body)]


def is_batch(headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bool:
    """Say whether a request is a batch, also one of a single event."""
    media_type = _media_type(single_header(headers, b"content-type"))
    return media_type == BATCH or (_is_bare(headers, media_type) and body.lstrip().startswith(b"["))


def is_cloudevent(body: bytes) -> bool:
    """Say whether JSON is a CloudEvent in the JSON format."""
    try:
        _checked(read_object(body))
    except Unreadable:
        return False
    return True


def _is_bare(headers: Sequence[tuple[bytes, bytes]], media_type: str) -> bool:
    """Say whether a request can only be structured, though its content type does not say so: curl's and ours do not."""
    return media_type == "application/json" and not any(name.startswith(_PREFIX) for name, _ in headers)


def cloudevent(attributes: Mapping[str, Any], *, data: bytes | None, content_type: str = "") -> bytes:
    """Return a CloudEvent in the JSON format.

    Args:
        attributes: all but `datacontenttype`.
        data: None: it has none.
        content_type: what the data is; empty: JSON if it is JSON, else bytes.

    Raises:
        Unreadable: the data is not the JSON that its content type says.
    """
    event = dict(attributes)
    if content_type:
        event["datacontenttype"] = content_type
    head = orjson.dumps(event)
    if data is None:
        return head
    return b"%b,%b}" % (head[:-1], _data(data, _media_type(content_type)))


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _data(data: bytes, media_type: str) -> bytes:
    """Return the member that holds the data."""
    is_json = media_type.endswith(("/json", "+json"))
    if is_json or not media_type:
        try:
            read_json(data)
        except Unreadable as error:
            if is_json:
                raise Unreadable(f"the data is not the JSON that content type {shown(media_type)} says") from error
        else:
            return b'"data":' + data.strip()
    elif is_text_type(media_type):
        try:
            return b'"data":' + orjson.dumps(data.decode("utf-8"))
        except UnicodeDecodeError:
            pass
    return b'"data_base64":"%b"' % b64encode(data)


def _batch(body: bytes) -> list[ReadEvent]:
    items = needed_list(read_json(body), "a batch")
    events = []
    for number, (item, written) in enumerate(zip(items, raw_items(body), strict=True)):
        try:
            delivery_id = _checked(needed_object(item, "a CloudEvent"))
        except Unreadable as error:
            raise Unreadable(f"event {number} of the batch: {error}") from error
        events.append(ReadEvent(payload=written, delivery_id=delivery_id))
    return events


def _binary(headers: Sequence[tuple[bytes, bytes]], *, content_type: str, body: bytes) -> ReadEvent:
    attributes: dict[str, Any] = {}
    for name, value in headers:
        if name.startswith(_PREFIX) and len(name) > len(_PREFIX):
            attribute = name.removeprefix(_PREFIX).decode("latin-1")
            if attribute in attributes:
                raise Unreadable(f"header {shown(name.decode('latin-1'))} is given more than once")
            attributes[attribute] = _attribute(attribute, value)
    if not attributes:
        raise Unreadable(f"no CloudEvent: neither ce- headers nor content type {STRUCTURED} or {BATCH}")
    for taken in ("data", "data_base64", "datacontenttype"):  # they are the body and its type
        if taken in attributes:
            raise Unreadable(f"header ce-{taken} is no attribute")
    delivery_id = _checked(attributes)
    if single_header(headers, b"content-encoding") not in ("", "identity"):
        raise Unreadable("a CloudEvent with a content encoding is not read")
    payload = cloudevent(attributes, data=body or None, content_type=content_type)
    return ReadEvent(payload=payload, delivery_id=delivery_id)


def _checked(event: Mapping[str, Any]) -> str:
    """Check the attributes and return what names the event."""
    version = needed_text(event, "specversion")
    if version != SPEC_VERSION:
        raise Unreadable(f"specversion is {shown(version)}; {SPEC_VERSION} is read")
    id_, source, _ = (needed_text(event, name) for name in _REQUIRED)
    for name in _TEXTS:
        given_text(event, name)
    time = given_text(event, "time")
    if time and _TIME.match(time) is None:
        raise Unreadable(f"time is {shown(time)}; it must be like 2020-07-30T17:00:00Z (RFC 3339)")
    if event.get("data_base64") is not None:
        if event.get("data") is not None:
            raise Unreadable("data and data_base64 exclude each other")
        _check_base64(event["data_base64"])
    return f"{source} {id_}"


def _check_base64(value: Any) -> None:
    if not isinstance(value, str):
        raise Unreadable("data_base64 is no text")
    try:
        b64decode(value, validate=True)
    except ValueError as error:
        raise Unreadable("data_base64 is not base64") from error


def _attribute(name: str, raw: bytes) -> str:
    """Return a header's value: quotes off, percent-decoded (HTTP binding 3.1.3.2)."""
    text = raw.decode("latin-1").strip()
    if _QUOTED.match(text):
        text = _ESCAPE.sub(r"\1", text[1:-1])
    try:
        return unquote_to_bytes(text.encode("latin-1")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(f"header ce-{name} is not UTF-8") from error

"""EventBridge: envelopes, entries for PutEvents, and any JSON of a named source, as events of a bus (pure).

Shapes: docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html and
docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEventsRequestEntry.html. An envelope is what an API
destination posts; it is kept byte for byte.
"""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import orjson

from bridge.core import limits
from bridge.events.batches import iso_seconds
from bridge.events.bodies import (
    ReadEvent,
    Unreadable,
    is_too_deep,
    needed_list,
    needed_object,
    needed_text,
    read_as_written,
    read_object,
    shown,
)

_VERSION: Final = "0"
_ENVELOPE_TEXTS: Final = ("id", "detail-type", "source", "account", "time", "region")

Detail: TypeAlias = Mapping[str, Any] | orjson.Fragment
"""An object, or the JSON of one as its sender wrote it: a number of 70 digits stays one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BusEvent:
    """One event of an event bus."""

    event_id: str
    source: str
    detail_type: str
    detail: Detail
    time: float
    """Epoch seconds."""
    region: str
    account: str
    resources: Sequence[str] = ()
    replay_name: str = ""
    """Of a replay of an archive; empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BusDefaults:
    """What a route knows of events whose sender does not say it."""

    region: str
    account: str
    source: str = ""
    """Empty: JSON that is neither an envelope nor an entry is refused."""
    detail_type: str = ""
    """Likewise."""


def eventbridge_event(event: BusEvent) -> bytes:
    """Return the event: it is one, and no list."""
    made = {
        "version": _VERSION,
        "id": event.event_id,
        "detail-type": event.detail_type,
        "source": event.source,
        "account": event.account,
        "time": iso_seconds(event.time),
        "region": event.region,
        "resources": list(event.resources),
        "detail": event.detail,
    }
    return orjson.dumps(made | ({"replay-name": event.replay_name} if event.replay_name else {}))


def put_events_entry(event: BusEvent) -> bytes:
    """Return the same as an entry for PutEvents, which is what an application sends."""
    entry = {
        "Source": event.source,
        "DetailType": event.detail_type,
        "Detail": orjson.dumps(event.detail).decode(),
        "Time": iso_seconds(event.time),
        "Resources": list(event.resources),
    }
    return orjson.dumps(entry)


def read_eventbridge(body: bytes, *, defaults: BusDefaults, received_at: float) -> list[ReadEvent]:
    """Return the events of a request, in their order: an envelope, an entry, `{"Entries": […]}`, or any object.

    Only an envelope has a delivery id, its `id`.

    Args:
        body: the request's, whole.
        defaults: what makes an envelope of what is none.
        received_at: `time` of what has none, epoch seconds.

    Raises:
        Unreadable: none of these.
    """
    post = read_object(body)
    if "detail-type" in post and "detail" in post:
        return [_envelope(post, body)]
    if "Entries" in post:
        return _entries(post["Entries"], body, defaults=defaults, received_at=received_at)
    if "DetailType" in post and "Detail" in post:
        return [_entry(post, read_as_written(body), defaults=defaults, received_at=received_at)]
    if not defaults.source or not defaults.detail_type:
        raise Unreadable(
            "neither an event of EventBridge (detail-type, detail) nor an entry (Source, DetailType, Detail); "
            "the route has no bus_source and detail_type to make one of other JSON"
        )
    made = BusEvent(
        event_id=str(uuid.uuid4()),
        source=defaults.source,
        detail_type=defaults.detail_type,
        detail=orjson.Fragment(body.strip()),
        time=received_at,
        region=defaults.region,
        account=defaults.account,
    )
    return [ReadEvent(payload=eventbridge_event(made))]


def _envelope(post: Mapping[str, Any], body: bytes) -> ReadEvent:
    version = needed_text(post, "version")
    if version != _VERSION:
        raise Unreadable(f'version is {shown(version)}; it must be "{_VERSION}"')
    for name in _ENVELOPE_TEXTS:
        needed_text(post, name)
    _resources(post.get("resources"))
    needed_object(post["detail"], "detail")
    return ReadEvent(payload=body.strip(), delivery_id=post["id"])


def _entries(value: Any, body: bytes, *, defaults: BusDefaults, received_at: float) -> list[ReadEvent]:
    entries = needed_list(value, "Entries")
    if not entries:
        raise Unreadable("Entries is empty")
    events = []
    for number, (entry, written) in enumerate(zip(entries, read_as_written(body)["Entries"], strict=True)):
        try:
            made = _entry(needed_object(entry, "it"), written, defaults=defaults, received_at=received_at)
        except Unreadable as error:
            raise Unreadable(f"entry {number}: {error}") from error
        events.append(made)
    return events


def _entry(
    entry: Mapping[str, Any], written: Mapping[str, Any], *, defaults: BusDefaults, received_at: float
) -> ReadEvent:
    """Return the event of an entry; `written` is the same with its numbers as they are written."""
    made = BusEvent(
        event_id=str(uuid.uuid4()),
        source=needed_text(entry, "Source"),
        detail_type=needed_text(entry, "DetailType"),
        detail=_detail(written.get("Detail")),
        time=_time(entry.get("Time"), received_at),
        region=defaults.region,
        account=defaults.account,
        resources=_resources(entry.get("Resources")),
    )
    return ReadEvent(payload=eventbridge_event(made))


def _detail(value: Any) -> Detail:
    """Return an entry's detail: PutEvents wants JSON in a string, which stays as it is; an object is understood too."""
    if isinstance(value, str):
        text = value.encode("utf-8")
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise Unreadable(f"Detail is not JSON: {error.msg}") from error
        if is_too_deep(text):
            raise Unreadable(f"Detail is nested deeper than {limits.JSON_DEPTH_MAX} levels")
        needed_object(value, "Detail")
        return orjson.Fragment(text)
    return needed_object(value, "Detail")


def _time(value: Any, received_at: float) -> float:
    """Return an entry's time in epoch seconds: text of ISO 8601, or a number as AWS's own clients send it."""
    if value is None:
        return received_at
    text = str(value) if isinstance(value, str) else ""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        at = dt.datetime.fromtimestamp(value, dt.UTC) if is_number else dt.datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=dt.UTC)).astimezone(dt.UTC).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise Unreadable("Time is no time such as 2020-07-30T17:00:00Z") from error


def _resources(value: Any) -> list[str]:
    if value is None:
        return []
    found = needed_list(value, "resources")
    if not all(isinstance(each, str) for each in found):
        raise Unreadable("resources is no list of text")
    return found

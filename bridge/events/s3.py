"""S3: notifications of a bucket, as AWS or MinIO posts them, as Lambda's event (pure).

Shapes: docs.aws.amazon.com/lambda/latest/dg/with-s3.html, docs.aws.amazon.com/AmazonS3/latest/userguide/
notification-content-structure.html; MinIO's are those of its webhook target (`EventName`, `Key`, `Records`).

What a record of MinIO gets: `eventSource` aws:s3, `eventName` without `s3:`, version 2.1, the route's region where it
has none, and the object's key encoded as S3 does (MinIO encodes slashes too). A removed object has no size and no eTag.
What MinIO tells beyond S3 (`contentType`, `userMetadata`, …) stays. Records of AWS itself are kept as they are.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, quote_plus, unquote_plus

import orjson

from bridge.events.batches import iso_milliseconds
from bridge.events.bodies import (
    ReadEvent,
    Unreadable,
    given_text,
    needed_list,
    needed_object,
    needed_text,
    read_as_written,
    read_object,
)

TEST_EVENT: Final = "s3:TestEvent"
AWS_SOURCE: Final = "aws:s3"
MINIO_SOURCE: Final = "minio:s3"

_PREFIX: Final = "s3:"
_REMOVED: Final = "ObjectRemoved:"
_SCHEMA: Final = "1.0"
_VERSION: Final = "2.1"
_KEY_SAFE: Final = "/-_.*"
_OF_STORED: Final = ("size", "eTag")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Change:
    """One change of an object."""

    bucket: str
    key: str
    """As it is; encoded for the event."""
    time_ms: int
    """Epoch milliseconds."""
    region: str
    event_name: str = "ObjectCreated:Put"
    size: int = 0
    """Bytes; not told of a removed object."""
    etag: str = ""
    """Likewise."""
    version_id: str = ""
    """Empty: the bucket has no versions."""
    sequencer: str = ""
    source_ip: str = "127.0.0.1"
    principal_id: str = "EXAMPLE"
    owner_id: str = "EXAMPLE"
    configuration_id: str = ""
    request_id: str = ""
    host_id: str = ""
    """`x-amz-id-2`."""


def s3_event(changes: Sequence[S3Change]) -> bytes:
    """Return the event; AWS sends one record each."""
    return orjson.dumps({"Records": [_record(change) for change in changes]})


def minio_body(change: S3Change) -> bytes:
    """Return what MinIO's webhook target posts of a change."""
    record = _record(change)
    name = _PREFIX + change.event_name
    record |= {"eventSource": MINIO_SOURCE, "eventVersion": "2.0", "eventName": name}
    record["s3"]["object"]["key"] = quote_plus(change.key)
    return orjson.dumps({"EventName": name, "Key": f"{change.bucket}/{change.key}", "Records": [record]})


def read_s3(body: bytes, *, region: str) -> ReadEvent | None:
    """Return the event of a notification; None of the test that S3 posts when it is told to notify.

    The delivery id is made of what names each change: bucket, key, version, sequencer and kind.

    Args:
        body: the request's, whole.
        region: `awsRegion` where the sender has none.

    Raises:
        Unreadable: no notification of a bucket.
    """
    post = read_object(body)
    if post.get("Event") == TEST_EVENT:
        return None
    if "Records" not in post:
        raise Unreadable(f"no notification of a bucket: neither Records nor Event {TEST_EVENT}")
    records = needed_list(read_as_written(body)["Records"], "Records")
    if not records:
        raise Unreadable("Records is empty")
    read = [_read(record, number, region=region) for number, record in enumerate(records)]
    names = [name for _, name in read]
    delivery_id = "s3:" + hashlib.sha256("\n".join(names).encode()).hexdigest() if all(names) else ""
    return ReadEvent(payload=orjson.dumps({"Records": [record for record, _ in read]}), delivery_id=delivery_id)


def _read(value: Any, number: int, *, region: str) -> tuple[dict[str, Any], str]:
    """Return a record as S3 has it, and what names the change, empty where it has no sequencer."""
    try:
        record = needed_object(value, "it")
        event_name = needed_text(record, "eventName")
        s3 = needed_object(record.get("s3"), "s3")
        bucket = needed_text(needed_object(s3.get("bucket"), "s3.bucket"), "name")
        stored = needed_object(s3.get("object"), "s3.object")
        key = needed_text(stored, "key")
        source = given_text(record, "eventSource")
        sequencer, version = given_text(stored, "sequencer"), given_text(stored, "versionId")
    except Unreadable as error:
        raise Unreadable(f"record {number}: {error}") from error
    change = "\t".join((bucket, quote(key), version, sequencer, event_name.removeprefix(_PREFIX)))
    named = change if sequencer else ""
    if source == AWS_SOURCE and not event_name.startswith(_PREFIX):
        return record, named
    event_name = event_name.removeprefix(_PREFIX)
    kept = dict(stored)
    if source == MINIO_SOURCE:
        kept["key"] = _encoded(unquote_plus(key))
    if event_name.startswith(_REMOVED):
        for name in _OF_STORED:
            kept.pop(name, None)
    changed = record | {
        "eventVersion": _VERSION,
        "eventSource": AWS_SOURCE,
        "awsRegion": given_text(record, "awsRegion") or region,
        "eventName": event_name,
        "s3": s3 | {"object": kept},
    }
    return changed, named


def _encoded(key: str) -> str:
    return quote_plus(key, safe=_KEY_SAFE)


def _record(change: S3Change) -> dict[str, Any]:
    stored: dict[str, Any] = {"key": _encoded(change.key)}
    if not change.event_name.startswith(_REMOVED):
        stored |= {"size": change.size, "eTag": change.etag}
    if change.version_id:
        stored["versionId"] = change.version_id
    stored["sequencer"] = change.sequencer
    return {
        "eventVersion": _VERSION,
        "eventSource": AWS_SOURCE,
        "awsRegion": change.region,
        "eventTime": iso_milliseconds(change.time_ms),
        "eventName": change.event_name,
        "userIdentity": {"principalId": change.principal_id},
        "requestParameters": {"sourceIPAddress": change.source_ip},
        "responseElements": {"x-amz-request-id": change.request_id, "x-amz-id-2": change.host_id},
        "s3": {
            "s3SchemaVersion": _SCHEMA,
            "configurationId": change.configuration_id,
            "bucket": {
                "name": change.bucket,
                "ownerIdentity": {"principalId": change.owner_id},
                "arn": f"arn:aws:s3:::{change.bucket}",
            },
            "object": stored,
        },
    }

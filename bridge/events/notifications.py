"""Events of services that push: SNS, S3 and EventBridge (pure).

Shapes: docs.aws.amazon.com/lambda/latest/dg/with-sns.html, with-s3.html and
docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote_plus

import orjson

from bridge.events.batches import iso_milliseconds, iso_seconds

_REMOVED: Final = "ObjectRemoved:"
_SCHEMA: Final = "1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnsMessage:
    """One notification of a topic."""

    topic_arn: str
    subscription_arn: str
    message: str
    message_id: str
    time_ms: int
    """When it was published, epoch milliseconds."""
    subject: str | None = None
    attributes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Type (String, Binary, …) and value by name; of Binary the base64."""
    signature: str = ""
    signing_cert_url: str = ""
    unsubscribe_url: str = ""


def sns_event(messages: Sequence[SnsMessage]) -> bytes:
    """Return the event; AWS sends one record each."""
    return orjson.dumps({"Records": [_sns_record(message) for message in messages]})


def _sns_record(message: SnsMessage) -> dict[str, Any]:
    attributes = {name: {"Type": kind, "Value": value} for name, (kind, value) in message.attributes.items()}
    return {
        "EventVersion": "1.0",
        "EventSubscriptionArn": message.subscription_arn,
        "EventSource": "aws:sns",
        "Sns": {
            "SignatureVersion": "1",
            "Timestamp": iso_milliseconds(message.time_ms),
            "Signature": message.signature,
            "SigningCertUrl": message.signing_cert_url,
            "MessageId": message.message_id,
            "Message": message.message,
            "MessageAttributes": attributes,
            "Type": "Notification",
            "UnsubscribeUrl": message.unsubscribe_url,
            "TopicArn": message.topic_arn,
            "Subject": message.subject,
        },
    }


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
    return orjson.dumps({"Records": [_s3_record(change) for change in changes]})


def _s3_record(change: S3Change) -> dict[str, Any]:
    stored: dict[str, Any] = {"key": quote_plus(change.key, safe="/-_.*")}
    if not change.event_name.startswith(_REMOVED):
        stored |= {"size": change.size, "eTag": change.etag}
    if change.version_id:
        stored["versionId"] = change.version_id
    stored["sequencer"] = change.sequencer
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class BusEvent:
    """One event of an event bus."""

    event_id: str
    source: str
    detail_type: str
    detail: Mapping[str, Any]
    time: float
    """Epoch seconds."""
    region: str
    account: str
    resources: Sequence[str] = ()
    replay_name: str = ""
    """Of a replay of an archive; empty: none."""


def eventbridge_event(event: BusEvent) -> bytes:
    """Return the event: it is one, and no list."""
    made = {
        "version": "0",
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

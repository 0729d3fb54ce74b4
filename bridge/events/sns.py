"""SNS: what a topic posts to an HTTP endpoint, what is signed of it, and Lambda's event of it (pure).

Shapes: docs.aws.amazon.com/lambda/latest/dg/with-sns.html and docs.aws.amazon.com/sns/latest/dg/
sns-message-and-json-formats.html, sns-verify-signature-of-message.html, sns-large-payload-raw-message-delivery.html.
The post and Lambda's event spell three members differently: `SigningCertURL`, `UnsubscribeURL`, and `Subject`, which
the post leaves out and the event has as null.
"""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

import orjson

from bridge.core.arn import parse_arn
from bridge.events.bodies import Unreadable, given_text, needed_object, needed_text, read_object, shown, single_header

NOTIFICATION: Final = "Notification"
SUBSCRIPTION: Final = "SubscriptionConfirmation"
UNSUBSCRIPTION: Final = "UnsubscribeConfirmation"
KINDS: Final = (NOTIFICATION, SUBSCRIPTION, UNSUBSCRIPTION)

URL_MAX_CHARS: Final = 1024
_DNS_SUFFIXES: Final = {"aws": "amazonaws.com", "aws-us-gov": "amazonaws.com", "aws-cn": "amazonaws.com.cn"}
_CERTIFICATE_PATH: Final = re.compile(r"/[A-Za-z0-9_-]+\.pem\Z")
_SIGNED_NOTIFICATION: Final = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_SIGNED_CONFIRMATION: Final = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")


@dataclass(frozen=True, slots=True, kw_only=True)
class SnsMessage:
    """One notification of a topic."""

    topic_arn: str
    subscription_arn: str
    message: str
    message_id: str
    timestamp: str
    """When it was published, as SNS writes it: `2019-01-02T12:45:07.000Z`."""
    subject: str | None = None
    attributes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Type (String, Binary, …) and value by name; of Binary the base64."""
    signature_version: str = "1"
    signature: str = ""
    signing_cert_url: str = ""
    unsubscribe_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnsPost:
    """What a topic posts: a notification, or a question whether it may (or may no more)."""

    kind: str
    """One of KINDS."""
    message: SnsMessage
    token: str = ""
    """Of a confirmation."""
    subscribe_url: str = ""
    """Likewise: asked for, it confirms (or undoes the end of) the subscription."""

    def signed(self) -> bytes:
        """Return what SNS signs: names and values in lines, in the order of their names."""
        members = self.members()
        names = _SIGNED_NOTIFICATION if self.kind == NOTIFICATION else _SIGNED_CONFIRMATION
        return "".join(f"{name}\n{members[name]}\n" for name in names if name in members).encode("utf-8")

    def members(self) -> dict[str, Any]:
        """Return the body as SNS posts it, in its order."""
        message = self.message
        is_notification = self.kind == NOTIFICATION
        members: dict[str, Any] = {"Type": self.kind, "MessageId": message.message_id}
        if not is_notification:
            members["Token"] = self.token
        members["TopicArn"] = message.topic_arn
        if message.subject is not None:
            members["Subject"] = message.subject
        members["Message"] = message.message
        if not is_notification:
            members["SubscribeURL"] = self.subscribe_url
        members |= {
            "Timestamp": message.timestamp,
            "SignatureVersion": message.signature_version,
            "Signature": message.signature,
            "SigningCertURL": message.signing_cert_url,
        }
        if is_notification:
            members["UnsubscribeURL"] = message.unsubscribe_url
        if message.attributes:
            members["MessageAttributes"] = _attributes_json(message.attributes)
        return members


def read_sns(headers: Sequence[tuple[bytes, bytes]], body: bytes) -> SnsPost:
    """Return what a topic posted; which subscription it is of, only a header says.

    Args:
        headers: lower-case names.
        body: the request's, whole; its content type is `text/plain` and says nothing.

    Raises:
        Unreadable: no message of SNS.
    """
    post = read_object(body)
    kind = needed_text(post, "Type")
    if kind not in KINDS:
        raise Unreadable(f"Type is {shown(kind)}; it must be one of {', '.join(KINDS)}")
    unsubscribe_url = given_text(post, "UnsubscribeURL")
    message = SnsMessage(
        topic_arn=needed_text(post, "TopicArn"),
        subscription_arn=single_header(headers, b"x-amz-sns-subscription-arn") or _subscription_of(unsubscribe_url),
        message=_text(post, "Message"),
        message_id=needed_text(post, "MessageId"),
        timestamp=needed_text(post, "Timestamp"),
        subject=None if post.get("Subject") is None else _text(post, "Subject"),
        attributes=_attributes(post.get("MessageAttributes")),
        signature_version=given_text(post, "SignatureVersion"),
        signature=given_text(post, "Signature"),
        signing_cert_url=given_text(post, "SigningCertURL"),
        unsubscribe_url=unsubscribe_url,
    )
    if kind == NOTIFICATION:
        return SnsPost(kind=kind, message=message)
    token, subscribe_url = needed_text(post, "Token"), needed_text(post, "SubscribeURL")
    return SnsPost(kind=kind, message=message, token=token, subscribe_url=subscribe_url)


def sns_host(topic_arn: str) -> str:
    """Return the one host that speaks for a topic: `sns.REGION.amazonaws.com`, in China with `.cn`.

    Raises:
        Unreadable: no topic's ARN.
    """
    try:
        arn = parse_arn(topic_arn)
    except ValueError as error:
        raise Unreadable(f"TopicArn is {shown(topic_arn)}: {error}") from error
    if arn.service != "sns" or not arn.region or arn.partition not in _DNS_SUFFIXES:
        raise Unreadable(f"TopicArn is {shown(topic_arn)}: no topic of AWS")
    return f"sns.{arn.region}.{_DNS_SUFFIXES[arn.partition]}"


def certificate_url(message: SnsMessage) -> str:
    """Return the URL of the certificate that a message is signed with.

    Raises:
        Unreadable: it is not `https://sns.REGION.amazonaws.com/NAME.pem` with the region of the topic.
    """
    host = sns_host(message.topic_arn)
    parts = _pinned(message.signing_cert_url, host, "SigningCertURL")
    if _CERTIFICATE_PATH.match(parts.path) is None or parts.query:
        raise Unreadable("SigningCertURL is no certificate of SNS")
    return f"https://{host}{parts.path}"


def confirmation_url(post: SnsPost) -> str:
    """Return the URL that confirms a subscription: put together anew from the topic and the token.

    Raises:
        Unreadable: `SubscribeURL` is not at the topic's host, or for another topic, token or action.
    """
    topic = post.message.topic_arn
    host = sns_host(topic)
    parts = _pinned(post.subscribe_url, host, "SubscribeURL")
    try:
        asked = parse_qs(parts.query, max_num_fields=16)
    except ValueError:
        asked = {}
    expected = {"Action": ["ConfirmSubscription"], "TopicArn": [topic], "Token": [post.token]}
    if parts.path not in ("", "/") or any(asked.get(name) != value for name, value in expected.items()):
        raise Unreadable("SubscribeURL does not confirm this subscription")
    asked_for = f"TopicArn={quote(topic, safe=':')}&Token={quote(post.token, safe='')}"
    return f"https://{host}/?Action=ConfirmSubscription&{asked_for}"


def published_at(message: SnsMessage) -> float:
    """Return when a message was published, epoch seconds. Raises Unreadable."""
    try:
        at = dt.datetime.fromisoformat(message.timestamp)
        return (at if at.tzinfo is not None else at.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise Unreadable("Timestamp is no time such as 2012-05-02T00:54:06.655Z") from error


def _pinned(url: str, host: str, what: str) -> SplitResult:
    """Take apart a URL that must be of a host, without a port, a user or a fragment."""
    if len(url) > URL_MAX_CHARS or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise Unreadable(f"{what} is no URL")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise Unreadable(f"{what} is no URL") from error
    if parts.scheme != "https" or parts.netloc.lower() not in (host, f"{host}:443") or parts.fragment:
        raise Unreadable(f"{what} is not at https://{host}")
    return parts


def is_raw_delivery(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Say whether a post is the message alone: raw message delivery, which SNS does not sign."""
    return single_header(headers, b"x-amz-sns-rawdelivery").lower() == "true"


def read_raw_sns(headers: Sequence[tuple[bytes, bytes]], body: bytes, *, timestamp: str) -> SnsMessage:
    """Return the message of raw message delivery; its attributes, and when it was published, SNS leaves out.

    Args:
        headers: lower-case names; `x-amz-sns-…` say what is not in the body.
        body: the message.
        timestamp: when it was received, as SNS writes it.

    Raises:
        Unreadable: a header is missing, or the message is no text.
    """
    values = {name: single_header(headers, f"x-amz-sns-{name}".encode()) for name in ("message-id", "topic-arn")}
    for name, value in values.items():
        if not value:
            raise Unreadable(f"header x-amz-sns-{name} is missing")
    try:
        message = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable("the message is not UTF-8") from error
    return SnsMessage(
        topic_arn=values["topic-arn"],
        subscription_arn=single_header(headers, b"x-amz-sns-subscription-arn"),
        message=message,
        message_id=values["message-id"],
        timestamp=timestamp,
        signature_version="",
    )


def sns_event(messages: Sequence[SnsMessage]) -> bytes:
    """Return the event; AWS sends one record each."""
    return orjson.dumps({"Records": [_record(message) for message in messages]})


def message_of(payload: bytes) -> bytes | None:
    """Return the message of an event's first record; None where there is none."""
    try:
        message: str = orjson.loads(payload)["Records"][0]["Sns"]["Message"]
        return message.encode("utf-8")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None


def _record(message: SnsMessage) -> dict[str, Any]:
    return {
        "EventVersion": "1.0",
        "EventSubscriptionArn": message.subscription_arn,
        "EventSource": "aws:sns",
        "Sns": {
            "SignatureVersion": message.signature_version,
            "Timestamp": message.timestamp,
            "Signature": message.signature,
            "SigningCertUrl": message.signing_cert_url,
            "MessageId": message.message_id,
            "Message": message.message,
            "MessageAttributes": _attributes_json(message.attributes),
            "Type": NOTIFICATION,
            "UnsubscribeUrl": message.unsubscribe_url,
            "TopicArn": message.topic_arn,
            "Subject": message.subject,
        },
    }


def _attributes_json(attributes: Mapping[str, tuple[str, str]]) -> dict[str, dict[str, str]]:
    return {name: {"Type": kind, "Value": value} for name, (kind, value) in attributes.items()}


def _attributes(value: Any) -> dict[str, tuple[str, str]]:
    if value is None:
        return {}
    found = {}
    for name, attribute in needed_object(value, "MessageAttributes").items():
        members = needed_object(attribute, f"message attribute {shown(name)}")
        found[name] = (needed_text(members, "Type"), _text(members, "Value"))
    return found


def _text(value: Mapping[str, Any], name: str) -> str:
    """Return a member that is text, empty or not."""
    found = value.get(name)
    if not isinstance(found, str):
        raise Unreadable(f"{name} is {'missing' if found is None else 'no text'}")
    return found


def _subscription_of(unsubscribe_url: str) -> str:
    """Return the subscription that a URL ends, empty where it names none."""
    try:
        return parse_qs(urlsplit(unsubscribe_url).query, max_num_fields=16).get("SubscriptionArn", [""])[0]
    except ValueError:
        return ""

"""The format of SNS: notifications become events, and a subscription of the route's topics is confirmed."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from bridge.events.batches import iso_milliseconds
from bridge.events.bodies import Unreadable
from bridge.events.http import HttpRequest
from bridge.events.responses import HttpResponse
from bridge.events.sns import (
    NOTIFICATION,
    UNSUBSCRIPTION,
    SnsMessage,
    SnsPost,
    confirmation_url,
    is_raw_delivery,
    read_raw_sns,
    read_sns,
    sns_event,
)
from bridge.sources.push.bounds import Bounds, TooMuch
from bridge.sources.push.formats import Format, FormatContext, Reading, Taken
from bridge.sources.push.refusals import Refusal, malformed, unavailable
from bridge.sources.push.signatures.base import delivery
from bridge.util import https

log = structlog.get_logger("bridge.webhook")

CONFIRMATION_MAX_BYTES: Final = 64 * 1024
CONFIRMATION_S: Final = 5.0
"""SNS waits 15 s for an answer."""
ANY_TOPIC: Final = "*"

Confirm = Callable[[str], Awaitable[object]]
"""Asks for a pinned URL. Raises https.FetchFailed."""


class Sns(Format):
    """What a topic posts to an HTTP endpoint, signed or by raw message delivery.

    Args:
        context: the route's.
        topics: ARNs whose posts are taken, each whole or with `*` as its end; none: any.
        confirm: how a subscription is confirmed.
    """

    __slots__ = ("_bounds", "_confirm", "_name", "_topics")

    def __init__(self, context: FormatContext, *, topics: Sequence[str] = (), confirm: Confirm | None = None) -> None:
        self._name = context.origin.api_id
        self._topics = tuple(topics) or (ANY_TOPIC,)
        self._confirm = confirm or ask
        self._bounds = Bounds(context.clock.stepped)

    async def read(self, request: HttpRequest, *, request_id: str, received_at: float) -> Reading:
        """Return the event of a notification; confirm a subscription and say so."""
        del request_id
        try:
            if is_raw_delivery(request.headers):
                stamp = iso_milliseconds(round(received_at * 1000))
                return self._taken(read_raw_sns(request.headers, request.body, timestamp=stamp))
            post = read_sns(request.headers, request.body)
            if post.kind == NOTIFICATION:
                return self._taken(post.message)
            self._check_topic(post.message.topic_arn)
            url = confirmation_url(post)
        except Unreadable as error:
            raise malformed(str(error)) from error
        if post.kind == UNSUBSCRIPTION:
            log.warning("subscription_ended", source=self._name, topic=post.message.topic_arn)
            return HttpResponse(status=200, body=b'{"unsubscribed":true}\n')
        return await self._confirmed(post, url)

    def _taken(self, message: SnsMessage) -> Taken:
        self._check_topic(message.topic_arn)
        return Taken(sns_event([message]), delivery(message.message_id))

    def _check_topic(self, arn: str) -> None:
        for topic in self._topics:
            if arn == topic or (topic.endswith("*") and arn.startswith(topic[:-1])):
                return
        raise Refusal(403, "the topic is none of this route's", reason="topic")

    async def _confirmed(self, post: SnsPost, url: str) -> HttpResponse:
        topic = post.message.topic_arn
        try:
            with self._bounds.one():
                await self._confirm(url)
        except TooMuch as error:
            raise unavailable("too many confirmations; try again", reason="confirmation") from error
        except https.FetchFailed as error:
            log.warning("subscription_not_confirmed", source=self._name, topic=topic, error=str(error))
            if 400 <= error.status < 500:  # the token has run out, or was never one
                raise Refusal(400, "SNS did not take the confirmation", reason="confirmation") from error
            raise unavailable("SNS cannot be asked to confirm; try again", reason="confirmation") from error
        log.info("subscription_confirmed", source=self._name, topic=topic)
        return HttpResponse(status=200, body=b'{"confirmed":true}\n')


async def ask(url: str) -> object:
    """Return what is at a confirmation's URL. Raises https.FetchFailed."""
    return await https.fetch(url, body_max_bytes=CONFIRMATION_MAX_BYTES, timeout_s=CONFIRMATION_S)

"""What a webhook stores: the records of events, their ids and their sizes."""

from collections.abc import Sequence

from bridge.core import limits
from bridge.core.record import Record
from bridge.sources.push.formats import Taken
from bridge.sources.push.refusals import too_large
from bridge.sources.push.routes import Mounted
from bridge.util.ids import new_id


def record_of(mounted: Mounted, payload: bytes, request_id: str, received_at: float, delivery_id: str) -> Record:
    """Return the record of an event.

    Args:
        mounted: its route.
        payload: the serialised event, whose size is what the limits are about.
        request_id: its id.
        received_at: wall clock, epoch seconds.
        delivery_id: the sender's id of it; empty where there is none.

    Raises:
        Refusal: it is larger than the route's invocation type takes.
    """
    route = mounted.route
    size = len(payload)
    if size > mounted.payload_max:
        raise too_large(f"the event has {size} bytes; {route.invocation_type} takes {mounted.payload_max}")
    return Record(
        id=request_id,
        source=route.name,
        function=route.function,
        invocation_type=route.invocation_type,
        received_at=received_at,
        payload=payload,
        delivery_id=delivery_id,
    )


def batch_of(mounted: Mounted, batch: Sequence[Taken], received_at: float, delivery_id: str) -> list[Record]:
    """Return the records of a batch, each with an id of its own.

    Args:
        mounted: their route.
        batch: what the format made of the request.
        received_at: wall clock, epoch seconds.
        delivery_id: the sender's id of the whole, which is no event's own: each gets its number behind it.

    Raises:
        Refusal: there are too many, or one is too large.
    """
    if len(batch) > limits.REQUEST_EVENTS_MAX:
        raise too_large(f"{len(batch)} events in one request; {limits.REQUEST_EVENTS_MAX} at most")
    return [
        record_of(
            mounted,
            taken.payload,
            new_id(),
            received_at,
            taken.delivery_id or (f"{delivery_id}#{number}" if delivery_id else ""),
        )
        for number, taken in enumerate(batch)
    ]

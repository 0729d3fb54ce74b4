"""Lists of Lambda's API in pages: `Marker` and `MaxItems` in the query, `NextMarker` in the answer (semantics 0.1)."""

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from bridge.api.awslambda.errors import Refused, invalid, violated
from bridge.api.http import Answer, json_answer

T = TypeVar("T")

PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 10_000


def page(
    query: dict[str, str],
    member: str,
    found: Iterable[T],
    *,
    key: Callable[[T], str],
    show: Callable[[T], Mapping[str, Any] | str],
    most: int = PAGE_MAX,
    limit: int = PAGE_MAX,
    order: Callable[[str], Any] = str,
) -> Answer:
    """Answer one page: behind `Marker`, `MaxItems` at most, with NextMarker when more follow.

    Args:
        query: the request's.
        member: name of the list in the answer.
        found: all that there is.
        key: returns the text by which an item is told apart, and ordered.
        show: returns an item as the answer has it: asked for those of the page alone.
        most: items of a page, whatever was asked for.
        limit: largest MaxItems that is not refused.
        order: returns what to compare, of a key.
    """
    count = PAGE_DEFAULT
    if (written := query.get("MaxItems")) is not None:
        if not written.isascii() or not written.isdecimal() or len(written) > 9:
            raise Refused("SerializationException", f"STRING_VALUE can not be converted to an Integer: {written[:50]}")
        count = int(written)
        if count < 1:
            raise violated(count, "maxItems", "have value greater than or equal to 1")
        if count > limit:
            raise violated(count, "maxItems", f"have value less than or equal to {limit}")
    left = sorted(found, key=lambda each: order(key(each)))
    if marker := query.get("Marker"):
        after = _marked(marker, order)
        left = [each for each in left if order(key(each)) > after]
    count = min(count, most)
    answer: dict[str, Any] = {member: [show(each) for each in left[:count]]}
    if len(left) > count:
        answer["NextMarker"] = base64.urlsafe_b64encode(key(left[count - 1]).encode()).decode("ascii")
    return json_answer(answer)


def _marked(marker: str, order: Callable[[str], Any]) -> Any:
    try:
        return order(base64.b64decode(marker.encode("ascii"), altchars=b"-_", validate=True).decode())
    except (ValueError, binascii.Error) as error:
        raise invalid("Invalid Marker: give the NextMarker of the page before") from error

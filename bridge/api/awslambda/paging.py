"""Lists of Lambda's API in pages: `Marker` and `MaxItems` in the query, `NextMarker` in the answer (semantics 0.1)."""

import base64
import binascii
from collections.abc import Callable
from typing import Any, Final

from bridge.api.awslambda.errors import Refused, invalid, violated
from bridge.api.http import Answer, json_answer

PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 10_000


def page(
    query: dict[str, str],
    member: str,
    shown: list[dict[str, Any]],
    *,
    key: str,
    most: int = PAGE_MAX,
    limit: int = PAGE_MAX,
    order: Callable[[str], Any] = str,
) -> Answer:
    """Answer one page: behind `Marker`, `MaxItems` at most, with NextMarker when more follow.

    Args:
        query: the request's.
        member: name of the list in the answer.
        shown: all that there is.
        key: member by which items are told apart and ordered.
        most: items of a page, whatever was asked for.
        limit: largest MaxItems that is not refused.
        order: what to compare, of the key's text.
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
    shown = sorted(shown, key=lambda each: order(str(each[key])))
    if marker := query.get("Marker"):
        after = _marked(marker, order)
        shown = [each for each in shown if order(str(each[key])) > after]
    count = min(count, most)
    found: dict[str, Any] = {member: shown[:count]}
    if len(shown) > count:
        found["NextMarker"] = base64.urlsafe_b64encode(str(shown[count - 1][key]).encode()).decode("ascii")
    return json_answer(found)


def _marked(marker: str, order: Callable[[str], Any]) -> Any:
    try:
        return order(base64.b64decode(marker.encode("ascii"), altchars=b"-_", validate=True).decode())
    except (ValueError, binascii.Error) as error:
        raise invalid("Invalid Marker: give the NextMarker of the page before") from error

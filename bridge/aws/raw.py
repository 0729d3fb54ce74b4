"""Answers as they came: botocore signs and sends, but its parser, ten times slower than ours, gets an empty body.

botocore asks whoever listens to `before-parse` (its own customisations for S3 do) for members to put into the parsed
answer; what a handler takes out of `response_dict` is not parsed. No private name is used. See docs/quirks.md.
"""

from typing import Any, Final
from weakref import WeakKeyDictionary

RAW: Final = "BridgeRawBody"
"""Member of the answer that holds the body."""
_ERRORS_FROM: Final = 300
_taken: Final[WeakKeyDictionary[Any, set[str]]] = WeakKeyDictionary()
"""Of each client: asking botocore itself whether it knows us costs 30 us a call."""


def take_raw(client: Any, *operations: str) -> None:
    """Have the answers of these operations hold nothing but their body, under RAW; errors are parsed as ever.

    Twice is fine, and costs nothing: it may be said before every call.

    Args:
        client: one of botocore's or aiobotocore's.
        operations: as in the service's model: `GetRecords`.
    """
    taken = _taken.setdefault(client, set())
    if taken.issuperset(operations):
        return
    service = client.meta.service_model.service_id.hyphenize()
    taken.update(operations)
    for operation in operations:
        client.meta.events.register(
            f"before-parse.{service}.{operation}", _keep_raw, unique_id=f"bridge-raw-{service}-{operation}"
        )


def _keep_raw(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    if response_dict["status_code"] < _ERRORS_FROM:
        customized_response_dict[RAW] = response_dict["body"]
        response_dict["body"] = b"{}"

"""The endpoint of embedded streams: put records."""

from base64 import b64decode
from typing import Any, Final

import orjson

from bridge.api.http import Answer, HttpError, Request, json_answer
from bridge.api.services import Services
from bridge.core import limits
from bridge.core.errors import StreamNotFound
from bridge.core.stream import PutRecord

_MEMBERS: Final = frozenset({"key", "value", "headers", "timestamp"})
_TIMESTAMP_MAX_MS: Final = 253_402_300_799_999
"""The end of the year 9999."""


class StreamEndpoints:
    """Handlers of `/admin/v1/streams…`."""

    def __init__(self, services: Services) -> None:
        self._streams = services.streams

    async def put(self, request: Request) -> Answer:
        """Store the body's `records`, all in one order; answers their positions once they are durable.

        Each has the members of a record in Kafka's event: `key` and `value` (base64 or null), `headers` (objects of
        one member, bytes as numbers) and `timestamp` (epoch milliseconds), all but `value` optional.
        """
        records = _records(await request.body(limits.PUT_MAX_BYTES))
        try:
            positions = await self._streams.put(request.params["name"], records)
        except StreamNotFound as error:
            raise HttpError(404, str(error)) from error
        return json_answer({"positions": list(positions)})


def _records(body: bytes) -> list[PutRecord]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise HttpError(400, f"the body is not JSON: {error}") from error
    if not isinstance(document, dict) or set(document) != {"records"} or not isinstance(document["records"], list):
        raise HttpError(400, 'the body must be {"records": […]}')
    records = document["records"]
    if not 1 <= len(records) <= limits.PUT_RECORDS_MAX:
        raise HttpError(400, f"records: must be 1 to {limits.PUT_RECORDS_MAX}")
    return [_record(record, number) for number, record in enumerate(records)]


def _record(record: Any, number: int) -> PutRecord:
    where = f"records[{number}]"
    if not isinstance(record, dict) or "value" not in record or set(record) - _MEMBERS:
        raise HttpError(400, f"{where}: must be an object with value, and perhaps key, headers and timestamp")
    timestamp = record.get("timestamp")
    if timestamp is not None and not (type(timestamp) is int and 0 <= timestamp <= _TIMESTAMP_MAX_MS):
        raise HttpError(400, f"{where}.timestamp: must be epoch milliseconds")
    return PutRecord(
        key=_data(record.get("key"), f"{where}.key"),
        value=_data(record["value"], f"{where}.value"),
        headers=_headers(record.get("headers") or [], f"{where}.headers"),
        timestamp_ms=timestamp,
    )


def _data(value: Any, where: str) -> bytes | None:
    if value is None:
        return None
    try:
        return b64decode(value, validate=True)
    except (TypeError, ValueError) as error:
        raise HttpError(400, f"{where}: must be base64 or null") from error


def _headers(headers: Any, where: str) -> tuple[tuple[str, bytes | None], ...]:
    try:
        return tuple(
            (name, None if value is None else bytes(number & 0xFF for number in map(_byte, value)))
            for header in headers
            for name, value in header.items()
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise HttpError(400, f"{where}: must be a list of objects with one list of bytes each") from error


def _byte(number: Any) -> int:
    if type(number) is not int or not -128 <= number <= 255:
        raise ValueError
    return number

"""`bridge put` into an embedded stream: its records, and the requests they go in."""

import json
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any, Final

from bridge.cli import output
from bridge.cli.client import Client, refusal, segment
from bridge.cli.failures import Misused
from bridge.core import limits

_BATCH_RECORDS_MAX: Final = 500
BATCH_MAX_BYTES: Final = 512 * 1024
"""Of keys and values in one request, a larger record alone."""
FULL_TRIES_MAX: Final = 60
"""One a second, while the mapping is too far behind."""


def maker(key: str | None, *, as_records: bool, is_table: bool) -> Callable[[bytes], dict[str, Any]]:
    """Return what makes a record of a line."""
    if as_records:
        return lambda line: _record_of(line, is_table=is_table)
    if is_table and key is not None:
        return lambda value: _change_of(value, key.split(","))
    return lambda value: _keyed(value, key)


def _keyed(value: bytes, key: str | None) -> dict[str, Any]:
    found: Any = None
    if key is not None:
        try:
            found = json.loads(value)
        except ValueError:
            found = None
        for name in key.split("."):
            found = found.get(name) if isinstance(found, dict) else None
    return {"key": _base64(_bytes(found)), "value": _base64(value)}


def _change_of(value: bytes, names: Sequence[str]) -> dict[str, Any]:
    """Return a DynamoDB stream record of a new item whose key is these attributes."""
    from bridge.events.dynamodb import record_key
    from bridge.events.items import NotAnItem, keyed_change

    try:
        change = keyed_change(value, names)
    except NotAnItem as error:
        raise Misused(f"an item {error}") from error
    text = json.dumps(change, ensure_ascii=False, separators=(",", ":")).encode()
    return {"key": _base64(record_key(change)), "value": _base64(text)}


def _record_of(line: bytes, *, is_table: bool) -> dict[str, Any]:
    """Return a record of a line as `bridge generate-event kafka|kinesis|dynamodb --records` prints it."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise Misused(
            f"with --records a line is a JSON object with value, and perhaps key and headers: {error}"
        ) from error
    if is_table and isinstance(record, dict) and "dynamodb" in record:
        return {"key": None, "value": _base64(line)}
    if not isinstance(record, dict) or "value" not in record or set(record) - {"key", "value", "headers", "timestamp"}:
        raise Misused("with --records a line is a JSON object with value, and perhaps key, headers and timestamp")
    headers = record.get("headers") or {}
    listed = [headers] if isinstance(headers, dict) else headers
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise Misused("with --records headers are an object, or a list of objects of one member")
    pairs = [pair for each in listed for pair in each.items()]
    made = {
        "key": _base64(_bytes(record.get("key"))),
        "value": _base64(_bytes(record["value"])),
        "headers": [{name: None if value is None else list(_bytes(value) or b"")} for name, value in pairs],
    }
    return made if record.get("timestamp") is None else made | {"timestamp": record["timestamp"]}


def _bytes(value: Any) -> bytes | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def _base64(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode("ascii")


class RecordSender:
    """Gathers records into requests, at most so many a second."""

    def __init__(self, client: Client, stream: str, *, rate: float | None, show: Callable[[int, int], None]) -> None:
        self._client = client
        self._path = f"/streams/{segment(stream)}/records"
        self._rate = rate
        self._batch_max = _BATCH_RECORDS_MAX if rate is None else max(1, min(_BATCH_RECORDS_MAX, int(rate / 10)))
        self._show = show
        self._batch: list[dict[str, Any]] = []
        self._size = 0
        self._at = 0
        self._began = time.monotonic()
        self.count = 0
        """Records that are stored."""
        self.last: int | None = None
        """Position of the last one."""

    def add(self, record: dict[str, Any], at: int) -> None:
        """Put a record, which ends at byte `at` of the input, now or with others that follow."""
        size = len(record["value"] or "") + len(record["key"] or "")
        if self._batch and (len(self._batch) >= self._batch_max or self._size + size > BATCH_MAX_BYTES):
            self.flush()
        self._batch.append(record)
        self._size += size
        self._at = at

    def flush(self) -> None:
        """Put what has gathered."""
        if not self._batch:
            return
        if self._rate is not None:
            time.sleep(max(0.0, self._began + self.count / self._rate - time.monotonic()))
        body = json.dumps({"records": self._batch}).encode()
        if len(body) > limits.PUT_MAX_BYTES:
            raise Misused(f"a record of more than {output.size(limits.PUT_MAX_BYTES * 3 / 4)}")
        for _ in range(FULL_TRIES_MAX):
            reply = self._client.raw("POST", self._path, body=body, refuse=False)
            if reply.status != 503:
                break
            time.sleep(1.0)
        if reply.status >= 400:
            raise refusal(reply)
        self.last = json.loads(reply.body)["positions"][-1]
        self.count += len(self._batch)
        self._batch, self._size = [], 0
        self._show(self.count, self._at)

"""What a function's logger and its errors write in JSON, key by key as awslambdaric 4.2.2 does it; child side."""

import json
import logging
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "aws_request_id"}
"""Attributes that a record has anyway: the others came by `extra=` and stand beside the keys below."""
_encode: Final = json.JSONEncoder(ensure_ascii=False).encode


def level_of(name: str) -> int | None:
    """Return the level that AWS_LAMBDA_LOG_LEVEL asks of the root logger; None: it names none of Python's."""
    level = logging.getLevelName({"TRACE": "DEBUG"}.get(name.upper(), name.upper()))
    return level if isinstance(level, int) else None


def error_record(error: dict[str, Any]) -> dict[str, Any]:
    """Return what is written of an error that the handler did not catch."""
    return {"timestamp": time.strftime(TIME_FORMAT, time.gmtime()), "log_level": "ERROR", **error}


class JsonFormatter(logging.Formatter):
    """One JSON object a record; `shown` writes paths as they are on AWS."""

    def __init__(self, shown: Callable[[str], str]) -> None:
        super().__init__(datefmt=TIME_FORMAT)
        self._shown = shown

    def format(self, record: logging.LogRecord) -> str:
        """Return the object and a newline.

        Raises:
            TypeError: something of `extra=` has no JSON; it comes out of the call that logs, as on AWS.
        """
        level = min(50, max(0, record.levelno)) // 10 * 10
        found: dict[str, Any] = {
            "timestamp": self.formatTime(record, self.datefmt),
            "level": logging.getLevelName(level),
            "message": record.getMessage(),
            "logger": record.name,
            **self._exception(record),
            "requestId": getattr(record, "aws_request_id", ""),
        }
        if record.exc_info:
            found["location"] = self._shown(f"{record.pathname}:{record.funcName}:{record.lineno}")
        for name, value in vars(record).items():
            if name not in _OWN and name not in found and value is not None:
                found[name] = value
        return _encode(found) + "\n"

    def _exception(self, record: logging.LogRecord) -> dict[str, Any]:
        if not record.exc_info or record.exc_info[0] is None:
            return {}
        kind, error, trace = record.exc_info
        return {
            "stackTrace": [self._shown(line) for line in traceback.format_tb(trace)],
            "errorType": kind.__name__,
            "errorMessage": str(error),
        }

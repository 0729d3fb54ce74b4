"""The log of a library that connects by itself: kept from flooding ours, overheard for why an address is of no use."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Final

import structlog

REPEAT_S: Final = 30.0
"""Such a library says the same thing at every retry: each of its messages is passed on at most so often."""
MESSAGES_MAX: Final = 256
_HEARD: ContextVar[list[str] | None] = ContextVar("heard", default=None)


@contextlib.contextmanager
def overheard() -> Iterator[list[str]]:
    """Give what the library logs, in this task and those begun by it, of addresses that it cannot use, a text each.

    No exception of its says why it was not let in, or by whom.
    """
    said: list[str] = []
    token = _HEARD.set(said)
    try:
        yield said
    finally:
        _HEARD.reset(token)


class LibraryLog(logging.Handler):
    """Passes a library's log on: one kind of message at most every `REPEAT_S`, its chatter at debug.

    While a broker is away aiokafka would write some ten errors a second, all of them true and none of them new.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.DEBUG)
        self._monotonic = monotonic
        self._last: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one record on, or count it as left out; tell it to whoever overhears this task."""
        heard = _HEARD.get()
        if heard is not None and len(heard) < MESSAGES_MAX and (text := _of_address(record)):
            heard.append(text)
        kind, now = f"{record.name}:{record.msg}", self._monotonic()
        if now - self._last.get(kind, float("-inf")) < REPEAT_S:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        if len(self._last) >= MESSAGES_MAX:
            self._last.clear()
            self._left_out.clear()
        self._last[kind] = now
        left_out = self._left_out.pop(kind, 0)
        log = structlog.get_logger(record.name)
        write = log.warning if record.levelno >= logging.WARNING else log.debug
        write(record.getMessage(), **({"left_out": left_out} if left_out else {}))


def tame(library: str) -> None:
    """Give a library's loggers our handler; twice is fine."""
    logger = logging.getLogger(library)
    if not any(isinstance(handler, LibraryLog) for handler in logger.handlers):
        logger.addHandler(LibraryLog())
        logger.propagate = False
        logger.setLevel(logging.INFO)


def _of_address(record: logging.LogRecord) -> str:
    """Return `host:port: why` on one line where the record says that an address could not be used, else nothing."""
    if not record.msg.startswith("Unable ") or not isinstance(record.args, tuple) or len(record.args) != 3:
        return ""
    host, port, error = record.args
    return " ".join(f"{host}:{port}: {str(error) or type(error).__name__}".split())

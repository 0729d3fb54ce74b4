"""How a connection becomes aiokafka's arguments: addresses, TLS, SASL; and aiokafka's log, kept from flooding ours."""

import contextlib
import logging
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Final

import structlog

from bridge.core.connection import KafkaConnection, KafkaSasl, KafkaTls, SaslMechanism
from bridge.core.errors import ConfigError
from bridge.sources.pull.kafka_tokens import token_provider

REQUEST_TIMEOUT_MS: Final = 20_000
RETRY_BACKOFF_MS: Final = 250
LIBRARY_LOG_REPEAT_S: Final = 30.0
"""aiokafka says the same thing at every retry: each of its messages is passed on at most so often."""
LIBRARY_MESSAGES_MAX: Final = 256


def client_arguments(connection: KafkaConnection) -> dict[str, Any]:
    """Return the arguments that every client of aiokafka takes for this connection.

    Reads the certificate files anew at each call, so that a renewed one is used by the next client.

    Raises:
        ConfigError: a file cannot be read, a token's function cannot be found, or an extra is not installed.
    """
    tame_library_log()
    sasl, tls = connection.sasl, connection.tls
    if sasl is not None and sasl.mechanism is SaslMechanism.AWS_MSK_IAM and tls is None:
        tls = KafkaTls()  # MSK offers IAM over TLS only
    arguments: dict[str, Any] = {
        "bootstrap_servers": list(connection.bootstrap_servers),
        "client_id": connection.client_id,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "retry_backoff_ms": RETRY_BACKOFF_MS,
        "security_protocol": ("SASL_" if sasl else "") + ("SSL" if tls else "PLAINTEXT"),
    }
    if tls is not None:
        arguments["ssl_context"] = _ssl_context(tls)
    if sasl is not None:
        arguments |= _sasl_arguments(sasl)
    return arguments


def cluster_name(connection: KafkaConnection) -> str:
    """Return what a person knows the cluster by: the connection's name, or its addresses."""
    return connection.name or ",".join(connection.bootstrap_servers)


# --- TLS ------------------------------------------------------------------------------------------------------------
def _ssl_context(tls: KafkaTls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca or None)
    except (OSError, ValueError) as error:
        raise ConfigError(f"tls.ca {tls.ca}: {error}") from error
    if tls.cert:
        try:
            context.load_cert_chain(tls.cert, tls.key or None)
        except (OSError, ValueError) as error:
            raise ConfigError(f"tls.cert {tls.cert} with tls.key {tls.key}: {error}") from error
    return context


# --- SASL -----------------------------------------------------------------------------------------------------------
def _sasl_arguments(sasl: KafkaSasl) -> dict[str, Any]:
    match sasl.mechanism:
        case SaslMechanism.OAUTHBEARER | SaslMechanism.AWS_MSK_IAM:
            return {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": token_provider(sasl)}
        case _:
            return {
                "sasl_mechanism": sasl.mechanism.value,
                "sasl_plain_username": sasl.username,
                "sasl_plain_password": sasl.password,
            }


# --- the library's log ----------------------------------------------------------------------------------------------
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
    """Passes aiokafka's log on: one kind of message at most every `LIBRARY_LOG_REPEAT_S`, its chatter at debug.

    While a broker is away it would write some ten errors a second, all of them true and none of them new.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.DEBUG)
        self._monotonic = monotonic
        self._last: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one record on, or count it as left out; tell it to whoever overhears this task."""
        heard = _HEARD.get()
        if heard is not None and len(heard) < LIBRARY_MESSAGES_MAX and (text := _of_address(record)):
            heard.append(text)
        kind, now = f"{record.name}:{record.msg}", self._monotonic()
        if now - self._last.get(kind, float("-inf")) < LIBRARY_LOG_REPEAT_S:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        if len(self._last) >= LIBRARY_MESSAGES_MAX:
            self._last.clear()
        self._last[kind] = now
        left_out = self._left_out.pop(kind, 0)
        log = structlog.get_logger(record.name)
        write = log.warning if record.levelno >= logging.WARNING else log.debug
        write(record.getMessage(), **({"left_out": left_out} if left_out else {}))


def reason(error: BaseException, said: Sequence[str] = ()) -> str:
    """Return on one line why a call of the library's failed; of a connection, by what was overheard."""
    from aiokafka.errors import KafkaConnectionError

    if said and isinstance(error, KafkaConnectionError):
        return "; ".join(said)
    return " ".join(str(error).split()) or type(error).__name__


def _of_address(record: logging.LogRecord) -> str:
    """Return `host:port: why` on one line where the record says that an address could not be used, else nothing."""
    if not record.msg.startswith("Unable ") or not isinstance(record.args, tuple) or len(record.args) != 3:
        return ""
    host, port, error = record.args
    return " ".join(f"{host}:{port}: {str(error) or type(error).__name__}".split())


def tame_library_log() -> None:
    """Give aiokafka's loggers our handler; twice is fine."""
    logger = logging.getLogger("aiokafka")
    if not any(isinstance(handler, LibraryLog) for handler in logger.handlers):
        logger.addHandler(LibraryLog())
        logger.propagate = False
        logger.setLevel(logging.INFO)

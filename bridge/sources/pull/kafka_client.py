"""How a connection becomes aiokafka's arguments: addresses, TLS, SASL; and why its clients do not get in, in words."""

import ssl
from collections.abc import Sequence
from typing import Any, Final

from bridge.core.connection import KafkaConnection, KafkaSasl, KafkaTls, SaslMechanism
from bridge.core.errors import ConfigError
from bridge.sources.pull.kafka_egress import bind
from bridge.sources.pull.kafka_tokens import token_provider
from bridge.util import library_log

REQUEST_TIMEOUT_MS: Final = 20_000
RETRY_BACKOFF_MS: Final = 250


def client_arguments(connection: KafkaConnection) -> dict[str, Any]:
    """Return the arguments that every client of aiokafka takes for this connection.

    Reads the certificate files anew at each call, so that a renewed one is used by the next client.

    Raises:
        ConfigError: a file cannot be read, a token's function cannot be found, or an extra is not installed.
    """
    library_log.tame("aiokafka")
    client_id = connection.client_id
    sasl, tls = connection.sasl, connection.tls
    if sasl is not None and sasl.mechanism is SaslMechanism.AWS_MSK_IAM and tls is None:
        tls = KafkaTls()  # MSK offers IAM over TLS only
    arguments: dict[str, Any] = {
        "bootstrap_servers": list(connection.bootstrap_servers),
        "client_id": client_id if connection.egress is None else bind(client_id, connection.egress),
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


# --- why not ---------------------------------------------------------------------------------------------------------
def reason(error: BaseException, said: Sequence[str] = ()) -> str:
    """Return on one line why a call of the library's failed; of a connection, by what was overheard."""
    from aiokafka.errors import KafkaConnectionError

    if said and isinstance(error, KafkaConnectionError):
        return "; ".join(said)
    return " ".join(str(error).split()) or type(error).__name__

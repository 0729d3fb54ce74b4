"""Connections to brokers as frozen values, their secrets revealed and never printed."""

from dataclasses import dataclass, field
from enum import StrEnum


class SaslMechanism(StrEnum):
    """How a client says who it is (SASL), under the brokers' own names."""

    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"
    OAUTHBEARER = "OAUTHBEARER"
    AWS_MSK_IAM = "AWS_MSK_IAM"
    """OAUTHBEARER with a token signed by IAM: an extra of the installation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaTls:
    """TLS towards the brokers."""

    ca: str = ""
    """Absolute path of a PEM file with the only authorities believed; empty: the system's."""
    cert: str = ""
    """Absolute path of a PEM file: the client's certificate, then its chain; empty: none."""
    key: str = ""
    """Absolute path of the PEM file with its private key; together with `cert` only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSasl:
    """Who we are towards the brokers."""

    mechanism: SaslMechanism
    username: str = ""
    """PLAIN and SCRAM."""
    password: str = field(default="", repr=False)
    """PLAIN and SCRAM."""
    token: str = ""
    """OAUTHBEARER: `module:function`; called without arguments it returns the token, or an awaitable of it."""
    region: str = ""
    """AWS_MSK_IAM: the cluster's region."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConnection:
    """How a Kafka cluster is reached: all that a client of any library needs."""

    name: str
    """Of the `[connections.X]`; empty for one written as `kafka://host:port/topic`."""
    bootstrap_servers: tuple[str, ...]
    """`host:port` each, at least one."""
    tls: KafkaTls | None = None
    """None: plain text."""
    sasl: KafkaSasl | None = None
    """None: nobody asks who we are, or the client's certificate says it."""
    client_id: str = "bridge"
    event_source_arn: str = ""
    """The cluster's ARN: makes the events of its topics MSK's; empty: self-managed."""

"""Connections to brokers and to AWS as frozen values, their secrets revealed and never printed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bridge.core.egress import Egress


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
    egress: Egress | None = None
    """What binds its clients, brokers that it advertises too: a caller of the API named it; None: the file did."""

    @property
    def is_on_aws(self) -> bool:
        """Whether its brokers are AWS's: by their names, or because AWS lets us in."""
        hosts = [server.rpartition(":")[0].lower() for server in self.bootstrap_servers]
        is_named = any(host.endswith((".amazonaws.com", ".amazonaws.com.cn")) for host in hosts)
        return is_named or (self.sasl is not None and self.sasl.mechanism is SaslMechanism.AWS_MSK_IAM)


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsConnection:
    """How AWS, or what stands in for it, is reached: where, and as whom. Equal values share clients."""

    name: str
    """Of the `[connections.X]`; empty: boto's own chain, for an ARN that no connection is for."""
    region: str
    """Where no ARN says another one."""
    endpoint_url: str = ""
    """Of every service; empty: AWS's own."""
    endpoint_urls: Mapping[str, str] = field(default_factory=dict, hash=False)
    """By boto's name of the service; wins over `endpoint_url`."""
    role_arn: str = ""
    """Assumed through STS, by the credentials below; empty: these credentials themselves."""
    session_name: str = "bridge"
    """With `role_arn` only: what AWS calls us while we are it."""
    external_id: str = field(default="", repr=False)
    """With `role_arn` only."""
    is_of_function: bool = False
    """The role is a function's: there may be very many of these, and clients of few are kept."""
    profile: str = ""
    """Of boto's files; empty: boto's chain as it is."""
    access_key_id: str = ""
    """Explicit credentials; empty: those of the profile or of boto's chain."""
    secret_access_key: str = field(default="", repr=False)
    """Together with `access_key_id` only."""
    session_token: str = field(default="", repr=False)
    """Of temporary explicit credentials."""

    def endpoint(self, service: str) -> str:
        """Return the URL of a service by boto's name of it; empty: AWS's own."""
        return self.endpoint_urls.get(service) or self.endpoint_url

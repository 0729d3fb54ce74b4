"""`[connections.X]`: how a cluster is reached, shared by the mappings that read it and the destinations on it."""

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, Discriminator, Field, Tag

from bridge.config.section import Section, listed
from bridge.config.values import PathValue, SecretReference, parse_address, refuse
from bridge.core import limits
from bridge.core.connection import KafkaConnection, KafkaSasl, KafkaTls, SaslMechanism
from bridge.core.mapping import parse_source

if TYPE_CHECKING:
    from bridge.config.settings import Settings

ARN_PATTERN: Final = r"^(arn:aws[a-z-]*:kafka:[a-z0-9-]+:[0-9]{12}:cluster/[A-Za-z0-9_-]{1,64}/[A-Za-z0-9-]{1,64})?$"


def checked_server(server: str) -> str:
    """Return a broker's `host:port` as it is, or refuse it."""
    try:
        address = parse_address(server)
    except ValueError as error:
        refuse(str(error).replace("127.0.0.1:8580, 0.0.0.0:8580 or [::1]:8580", "kafka-1:9092 or [::1]:9092"))
    if not address.port:
        refuse("the port must be 1..65535")
    return server


class KafkaTlsSettings(Section):
    """`tls = { ca, cert, key }` of a connection."""

    ca: PathValue | None = Field(
        default=None, description="PEM file with the authorities believed; left out: the system's."
    )
    cert: PathValue | None = Field(
        default=None, description="PEM file: the client's certificate, then its chain; left out: none."
    )
    key: PathValue | None = Field(default=None, description="PEM file of its private key, without a passphrase.")


class KafkaSaslSettings(Section):
    """`sasl = { mechanism, … }` of a connection."""

    mechanism: Annotated[SaslMechanism, Field(strict=False)] = Field(description="How the client says who it is.")
    username: str = Field(default="", max_length=1000, description="User of PLAIN and SCRAM.")
    password: SecretReference | None = Field(default=None, description="Password of PLAIN and SCRAM.")
    token: str = Field(
        default="",
        max_length=1000,
        pattern=r"^([A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*)?$",
        description="module:function that returns the token of OAUTHBEARER.",
    )
    region: str = Field(
        default="",
        pattern=r"^([a-z]{2,8}(-[a-z]{2,16}){1,3}-[0-9]{1,2})?$",
        description="Region of the cluster, for AWS_MSK_IAM, such as eu-central-1.",
    )


def _tls_kind(value: Any) -> str | None:
    if isinstance(value, bool):
        return "word"
    return "files" if isinstance(value, dict | KafkaTlsSettings) else None


KafkaTlsValue: TypeAlias = Annotated[
    Annotated[bool, Tag("word")] | Annotated[KafkaTlsSettings, Tag("files")],
    Discriminator(
        _tls_kind,
        custom_error_type="bridge",
        custom_error_message='must be true, false or { ca = "path", cert = "path", key = "path" }',
    ),
]
Server: TypeAlias = Annotated[str, AfterValidator(checked_server)]


class KafkaConnectionSettings(Section):
    """One Kafka cluster."""

    type: Literal["kafka"] = Field(description="Kind of connection.")
    bootstrap_servers: tuple[Server, ...] = listed(
        "host:port of brokers; one that answers tells the others.",
        default=...,
        min_length=1,
        max_length=limits.BOOTSTRAP_SERVERS_MAX,
    )
    tls: KafkaTlsValue = Field(default=False, description="true: with the system's authorities; or files.")
    sasl: KafkaSaslSettings | None = Field(default=None, description="Who we are; left out: nobody asks.")
    client_id: str = Field(
        default="bridge", pattern=r"^[A-Za-z0-9._-]{1,200}$", description="What the brokers' logs call us."
    )
    event_source_arn: str = Field(
        default="", pattern=ARN_PATTERN, description="The cluster's ARN: makes events MSK's; left out: self-managed."
    )
    insecure: bool = Field(
        default=False, description="Lets a password or token pass in plain text to more than this machine."
    )


def connection_values(settings: "Settings") -> dict[str, KafkaConnection]:
    """Return how each cluster is reached; secrets are revealed here, and only here, for the clients.

    By name; one that a mapping writes as `kafka://host:port/topic` by its `host:port[,host:port…]`.
    """
    found = {name: _connection(name, connection) for name, connection in settings.connections.items()}
    for mapping in settings.mappings.values():
        address = parse_source(mapping.source)
        if address.kind == "kafka" and address.is_inline:
            servers = tuple(address.connection.split(","))
            found[address.connection] = KafkaConnection(name="", bootstrap_servers=servers)
    return found


def _connection(name: str, settings: KafkaConnectionSettings) -> KafkaConnection:
    return KafkaConnection(
        name=name,
        bootstrap_servers=settings.bootstrap_servers,
        tls=_tls(settings.tls),
        sasl=_sasl(settings.sasl) if settings.sasl is not None else None,
        client_id=settings.client_id,
        event_source_arn=settings.event_source_arn,
    )


def _tls(written: bool | KafkaTlsSettings) -> KafkaTls | None:  # noqa: FBT001 - `tls = true` is how it is written
    if isinstance(written, bool):
        return KafkaTls() if written else None
    return KafkaTls(**{name: str(path) for name in ("ca", "cert", "key") if (path := getattr(written, name))})


def _sasl(settings: KafkaSaslSettings) -> KafkaSasl:
    return KafkaSasl(
        mechanism=settings.mechanism,
        username=settings.username,
        password=settings.password.reveal() if settings.password else "",
        token=settings.token,
        region=settings.region,
    )

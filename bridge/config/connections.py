"""`[connections.X]`: how a cluster or AWS is reached, shared by the mappings, destinations and functions there."""

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, Discriminator, Field, Tag

from bridge.config.section import Section, listed
from bridge.config.values import EnvironmentValue, PathValue, Secret, SecretReference, parse_address, refuse
from bridge.core import limits
from bridge.core.arn import Arn
from bridge.core.connection import AwsConnection, KafkaConnection, KafkaSasl, KafkaTls, SaslMechanism
from bridge.core.mapping import parse_source

if TYPE_CHECKING:
    from bridge.config.settings import Settings

ARN_PATTERN: Final = r"^(arn:aws[a-z-]*:kafka:[a-z0-9-]+:[0-9]{12}:cluster/[A-Za-z0-9_-]{1,64}/[A-Za-z0-9-]{1,64})?$"

REGION_PATTERN: Final = r"^[a-z]{2,8}(-[a-z]{2,16}){1,3}-[0-9]{1,2}$"
_KEY_ID: Final = re.compile(r"(\w{1,128})?\Z")
_SERVICE: Final = re.compile(r"[a-z0-9-]{1,40}\Z")


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

    def secrets(self) -> tuple[str, ...]:
        """Return what must not be seen in a log, revealed."""
        return (self.sasl.password.reveal(),) if self.sasl is not None and self.sasl.password is not None else ()


def _checked_endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_whole = False
    if not is_whole or parts.query or parts.fragment or "@" in parts.netloc or not url.isprintable() or " " in url:
        refuse("must be http://host:port or https://host, with a path where the service has one")
    return url.rstrip("/")


def _checked_service(service: str) -> str:
    if not _SERVICE.match(service):
        refuse("a service is named as boto names it, such as sqs or kinesis")
    return service


def _checked_key_id(written: Secret) -> Secret:
    if not _KEY_ID.match(written.reveal()):
        refuse("must be 1..128 letters, digits and _")
    return written


Endpoint: TypeAlias = Annotated[str, AfterValidator(_checked_endpoint)]
Service: TypeAlias = Annotated[str, AfterValidator(_checked_service)]
AccessKeyId: TypeAlias = Annotated[EnvironmentValue, AfterValidator(_checked_key_id)]


class AwsConnectionSettings(Section):
    """One region of AWS, or a stand-in for it, as one principal."""

    type: Literal["aws"] = Field(description="Kind of connection.")
    region: str = Field(pattern=REGION_PATTERN, description="Region, such as eu-central-1.")
    endpoint_url: Endpoint | None = Field(
        default=None, max_length=2000, description="URL of every service; left out: AWS's own."
    )
    endpoint_urls: dict[Service, Endpoint] = Field(
        default={}, max_length=100, description="URLs by service, before endpoint_url, such as { sqs = ... }."
    )
    role_arn: str = Field(
        default="",
        max_length=2048,
        pattern=r"^(arn:aws[a-z-]*:iam::[0-9]{12}:role/[!-~]{1,1000})?$",
        description="Role that is assumed through STS; left out: none.",
    )
    external_id: str = Field(
        default="", max_length=1224, pattern=r"^[\w+=,.@:/-]*$", description="External id that the role asks for."
    )
    profile: str = Field(default="", max_length=1000, description="Profile of boto's files; left out: boto's chain.")
    access_key_id: AccessKeyId | None = Field(
        default=None, description="Explicit credentials; left out: boto's chain. Text, or a reference as of a secret."
    )
    secret_access_key: SecretReference | None = Field(default=None, description="Together with access_key_id.")
    session_token: SecretReference | None = Field(default=None, description="Of temporary credentials.")
    insecure: bool = Field(default=False, description="Lets endpoints be plain http on more than this machine.")

    def secrets(self) -> tuple[str, ...]:
        """Return what must not be seen in a log, revealed."""
        return tuple(secret.reveal() for secret in (self.secret_access_key, self.session_token) if secret is not None)


CONNECTION_TYPES: Final = ("kafka", "aws")


def _type_of(value: Any) -> str | None:
    if isinstance(value, KafkaConnectionSettings | AwsConnectionSettings):
        return value.type
    if not isinstance(value, dict):
        return "kafka"  # told as not being a table
    kind = value.get("type", "kafka")  # where it is missing, kafka's own section tells that
    return kind if isinstance(kind, str) and kind in CONNECTION_TYPES else None


ConnectionSettings: TypeAlias = Annotated[
    Annotated[KafkaConnectionSettings, Tag("kafka")] | Annotated[AwsConnectionSettings, Tag("aws")],
    Discriminator(_type_of, custom_error_type="connection", custom_error_message='must be "kafka" or "aws"'),
]


def connections_in(settings: "Settings", region: str) -> list[str]:
    """Return the names of the connections of type aws in a region, in the file's order."""
    return [
        name
        for name, made in settings.connections.items()
        if isinstance(made, AwsConnectionSettings) and made.region == region
    ]


def aws_connection(settings: "Settings", *, arn: Arn | None = None, name: str = "") -> AwsConnection:
    """Return how AWS is reached; secrets are revealed here, for the clients.

    Args:
        settings: the file's.
        arn: of what is asked for, where nothing but its ARN is written.
        name: the connection written beside it, or in its URL; empty: the only one of the ARN's region, else none,
            which is boto's own chain.

    Raises:
        KeyError: no AWS connection of that name (the checks of the file have told it).
    """
    of_aws = {key: made for key, made in settings.connections.items() if isinstance(made, AwsConnectionSettings)}
    region = arn.region if arn is not None else ""
    if not name and region:
        here = connections_in(settings, region)
        if len(here) != 1:
            return AwsConnection(name="", region=region)
        name = here[0]
    return _aws_connection(name, of_aws[name])


def _aws_connection(name: str, settings: AwsConnectionSettings) -> AwsConnection:
    return AwsConnection(
        name=name,
        region=settings.region,
        endpoint_url=settings.endpoint_url or "",
        endpoint_urls=dict(settings.endpoint_urls),
        role_arn=settings.role_arn,
        external_id=settings.external_id,
        profile=settings.profile,
        access_key_id=settings.access_key_id.reveal() if settings.access_key_id else "",
        secret_access_key=settings.secret_access_key.reveal() if settings.secret_access_key else "",
        session_token=settings.session_token.reveal() if settings.session_token else "",
    )


def connection_values(settings: "Settings") -> dict[str, KafkaConnection]:
    """Return how each cluster is reached; secrets are revealed here, and only here, for the clients.

    By name; one that a mapping writes as `kafka://host:port/topic` by its `host:port[,host:port…]`.
    """
    found = {
        name: _connection(name, connection)
        for name, connection in settings.connections.items()
        if isinstance(connection, KafkaConnectionSettings)
    }
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

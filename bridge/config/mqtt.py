"""`[sources.X] type = "mqtt"`: a broker, topics, and what messages become."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field

from bridge.config.mistakes import Loc, plain
from bridge.config.section import Section, listed
from bridge.config.tree import tables
from bridge.config.values import Address, PathValue, SecretReference, checked_target, refuse
from bridge.core import limits
from bridge.core.topics import filter_mistake, overlap, split_shared

# What reads select lists loads only where a file has one.

SCHEMES: Final = {"mqtt": 1883, "mqtts": 8883}
"""With their ports (IANA)."""
_FORMATS: Final = ("iot-raw", "iot-rule", "records")
_CLIENT_ID_MAX_CHARS: Final = 256
_EXPIRY_DEFAULT_S: Final = 7 * 86_400
_EXPIRY_MAX_S: Final = 0xFFFF_FFFF
"""For ever (MQTT 5, 3.1.2.11.2)."""


def split_url(url: str) -> SplitResult:
    """Return a broker's URL in parts.

    Raises:
        ValueError: it is none; says what is wanted.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = None, None
    if parts is None or parts.scheme not in SCHEMES or not parts.hostname or port == 0 or not url.isprintable():
        raise ValueError("must be mqtt://host, mqtts://host (TLS), or with a port: mqtt://host:1883")
    if "@" in parts.netloc:
        raise ValueError("no user or password in the URL; write username and password")
    if parts.path.strip("/") or parts.query or parts.fragment or " " in url:
        raise ValueError("a broker's URL ends with its host or port; topics are written in topics")
    return parts


def _checked_url(url: str) -> str:
    try:
        split_url(url)
    except ValueError as error:
        refuse(str(error))
    return url


def _checked_filter(text: str) -> str:
    if mistake := filter_mistake(text):
        refuse(mistake)
    return text


def _checked_topic(text: str) -> str:
    if set(text) & set("+#") or (mistake := filter_mistake(text)):
        refuse("a topic that is published to has no + or #" if set(text) & set("+#") else mistake)
    return text


def _checked_select(text: str) -> str:
    from bridge.events.select import SelectMistake, parse_select

    try:
        parse_select(text)
    except SelectMistake as error:
        refuse(str(error))
    return text


class MqttTlsSettings(Section):
    """`tls = { ca, cert, key }` of an MQTT source."""

    ca: PathValue | None = Field(
        default=None, description="PEM file with the authorities believed; left out: the system's."
    )
    cert: PathValue | None = Field(
        default=None, description="PEM file: the client's certificate, then its chain; left out: none."
    )
    key: PathValue | None = Field(default=None, description="PEM file of its private key, without a passphrase.")


class MqttWillSettings(Section):
    """`will = { topic, … }`: what the broker publishes when we are gone without a word."""

    topic: Annotated[str, AfterValidator(_checked_topic)] = Field(max_length=1000, description="Topic of the will.")
    payload: str = Field(default="", max_length=65_535, description="Its text.")
    qos: Literal[0, 1] = Field(default=0, description="Its quality of service.")
    retain: bool = Field(default=False, description="Whether the broker keeps it as the topic's last message.")


class MqttSettings(Section):
    """Messages of an MQTT broker."""

    type: Literal["mqtt"] = Field(description="Kind of source.")
    url: Annotated[str, AfterValidator(_checked_url)] = Field(
        max_length=1000, description="The broker: mqtt://host[:port], or mqtts:// for TLS."
    )
    topics: tuple[Annotated[str, AfterValidator(_checked_filter)], ...] = listed(
        "Topic filters with + and #, also $share/GROUP/FILTER, by which several daemons share the load.",
        default=...,
        min_length=1,
        max_length=limits.MQTT_TOPICS_MAX,
    )
    function: Annotated[str, AfterValidator(checked_target)] | None = Field(
        default=None,
        description="name[:version or alias] or ARN of the function that gets the events; none: only mappings read it.",
    )
    format: Literal["iot-raw", "iot-rule", "records"] = Field(
        default="iot-raw",
        description="iot-raw: the event is the payload; iot-rule: what select names; records: Records with the topic.",
    )
    select: Annotated[str, AfterValidator(_checked_select)] | None = Field(
        default=None, max_length=10_000, description="The select list of iot-rule, such as: *, topic(2) AS device."
    )
    version: Literal["5", "3.1.1"] = Field(default="5", description="Version of MQTT that is spoken.")
    qos: Literal[0, 1, 2] = Field(
        default=1, description="Highest quality of service that is subscribed to; for 2, 1 is used."
    )
    retained: bool = Field(
        default=True, description="Take the messages that the broker retains when a subscription is new."
    )
    client_id: str = Field(
        default="",
        max_length=_CLIENT_ID_MAX_CHARS,
        pattern=r"^[!-~]*$",
        description="Names our session, one for each daemon; left out: made once and kept in the state folder.",
    )
    session_expiry_s: int = Field(
        default=_EXPIRY_DEFAULT_S,
        ge=0,
        le=_EXPIRY_MAX_S,
        description="Seconds the broker keeps messages for us while we are away; 0: not at all.",
    )
    username: str = Field(default="", max_length=1000, description="User at the broker.")
    password: SecretReference | None = Field(default=None, description="The user's password.")
    tls: MqttTlsSettings | None = Field(
        default=None, description="Files for mqtts://; left out: the system's authorities."
    )
    insecure: bool = Field(default=False, description="Lets a password pass in plain text to more than this machine.")
    keepalive_s: int = Field(
        default=60, ge=5, le=3600, description="Seconds of silence after which the connection is tested."
    )
    will: MqttWillSettings | None = Field(default=None, description="What the broker publishes when we are lost.")
    buffer_mb: int = Field(
        default=limits.MQTT_BUFFER_DEFAULT_BYTES // limits.MIB,
        ge=1,
        le=1024,
        description="MiB received and not stored, at which nothing more is read from the broker.",
    )
    policy: Literal["implied", "explicit"] = Field(
        default="implied",
        description="implied: naming the function allows it; explicit: its resource policy must (AddPermission).",
    )
    invocation_type: Literal["Event"] = Field(default="Event", description="Event: stored, acknowledged, then invoked.")

    @property
    def form(self) -> str:
        """What its events are as a stream, as `sources.pull.push` calls it."""
        return "mqtt-records" if self.format == "records" else self.type

    def secrets(self) -> tuple[str, ...]:
        """Return what must not be seen in a log, revealed."""
        return () if self.password is None else (self.password.reveal(),)


def of_type(data: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the MQTT sources of an expanded file, by name."""
    for name, source in tables(data, "sources"):
        if source.get("type") == "mqtt":
            yield name, source


def mistakes(data: Mapping[str, Any]) -> Iterator[tuple[Loc, str]]:
    """Yield what does not fit together in MQTT sources."""
    owners: dict[tuple[str, object], str] = {}
    for name, source in of_type(data):
        loc = ("sources", name)
        yield from ((((*loc, key)), text) for key, text in _unfit(source))
        yield from _overlaps((*loc, "topics"), source.get("topics"))
        url, client_id = source.get("url"), source.get("client_id")
        if isinstance(url, str) and isinstance(client_id, str) and client_id:
            owner = owners.setdefault((url, client_id), name)
            if owner != name:
                yield (*loc, "client_id"), f"is that of sources.{plain(owner)}: a broker lets one in and the other out"


def _unfit(source: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    is_rule = source.get("format") == "iot-rule"
    if is_rule and "select" not in source:
        yield "select", 'missing: iot-rule selects; write select = "*, topic() AS topic"'
    if not is_rule and "select" in source:
        yield "select", 'only with format = "iot-rule"'
    try:
        parts = split_url(source.get("url", ""))
    except (ValueError, TypeError, AttributeError):
        return  # told by its own key
    if parts.scheme != "mqtts" and "tls" in source:
        yield "tls", "only with mqtts://"
    if "password" in source and not source.get("username"):
        yield "username", "missing: password is there"
    is_here = Address(parts.hostname or "", 0).is_loopback
    if parts.scheme == "mqtt" and "password" in source and not is_here and source.get("insecure") is not True:
        yield "url", "a password would pass in plain text: write mqtts://, or insecure = true"


def _overlaps(loc: Loc, topics: object) -> Iterator[tuple[Loc, str]]:
    """Yield shared filters that overlap others: brokers send those copies to different daemons, so none can be left."""
    if not isinstance(topics, list):
        return
    sound = [text for text in topics if isinstance(text, str) and not filter_mistake(text)]
    for number, text in enumerate(sound):
        for other in sound[:number]:
            (group, one), (other_group, two) = split_shared(text), split_shared(other)
            if (group or other_group) and text != other and overlap(one, two):
                yield (
                    loc,
                    f"{plain(text)} overlaps {plain(other)}: what both match comes twice, to different daemons",
                )
                return


def warnings(data: Mapping[str, Any]) -> Iterator[tuple[Loc, str]]:
    """Yield what is done otherwise than written."""
    for name, source in of_type(data):
        if source.get("qos") == 2:
            yield (
                ("sources", name, "qos"),
                "1 is used: a message of quality 2 would be confirmed before it is stored, and a kill would lose it",
            )

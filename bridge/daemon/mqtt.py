"""Makes MQTT sources of their settings; the adapter and its library load where a file has one."""

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from bridge.config.mqtt import SCHEMES
from bridge.core import limits

if TYPE_CHECKING:
    from bridge.config.mqtt import MqttSettings
    from bridge.core.mqtt import MqttSessions
    from bridge.core.ports import DeadLetters
    from bridge.core.push import PushSource
    from bridge.daemon.push import PushParts
    from bridge.events.mqtt import MessageShape
    from bridge.sources.push.mqtt_address import MqttAddress

_QOS_MAX: Final = 1


class MqttMaker:
    """`push.Maker` of MQTT sources, over the stores that they need beside an intake."""

    def __init__(self, dead_letters: "DeadLetters", sessions: "MqttSessions") -> None:
        self._dead_letters = dead_letters
        self._sessions = sessions

    def __call__(self, name: str, source: "MqttSettings", parts: "PushParts", /) -> "PushSource":
        """Return a source, not yet running."""
        from bridge.sources.push.mqtt import MqttSource, MqttSpec

        invocation = parts.settings.invocation
        most = invocation.async_payload_max_bytes if source.function else limits.SYNC_PAYLOAD_MAX_BYTES
        spec = MqttSpec(
            name=name,
            address=mqtt_address(source),
            topics=source.topics,
            shape=message_shape(source),
            function=source.function or "",
            client_id=source.client_id,
            qos=min(source.qos, _QOS_MAX),
            retained=source.retained,
            event_max_bytes=most,
            # Of a rule's event the payload may be the smaller part.
            payload_max_bytes=limits.SYNC_PAYLOAD_MAX_BYTES if source.format == "iot-rule" else most,
            buffer_max_bytes=source.buffer_mb * limits.MIB,
        )
        return MqttSource(
            spec,
            intake=parts.intake,
            put_letter=self._dead_letters.put,
            sessions=self._sessions,
            clock=parts.clock,
        )


def mqtt_address(source: "MqttSettings") -> "MqttAddress":
    """Return where a source's broker is; the password is revealed here, for the client."""
    from bridge.sources.push.mqtt_address import MqttAddress, MqttWill

    parts, will, tls = urlsplit(source.url), source.will, source.tls
    files = {} if tls is None else {key: str(path) for key in ("ca", "cert", "key") if (path := getattr(tls, key))}
    return MqttAddress(
        host=parts.hostname or "",
        port=parts.port or SCHEMES[parts.scheme],
        is_five=source.version == "5",
        tls=parts.scheme == "mqtts",
        username=source.username,
        password="" if source.password is None else source.password.reveal(),
        keepalive_s=source.keepalive_s,
        session_expiry_s=source.session_expiry_s,
        will=None if will is None else MqttWill(will.topic, will.payload.encode(), will.qos, will.retain),
        **files,
    )


def message_shape(source: "MqttSettings") -> "MessageShape":
    """Return what makes a source's messages events."""
    from bridge.events.mqtt import raw_event, records_event
    from bridge.events.select import parse_select

    if source.format == "iot-rule":
        return parse_select(source.select or "")
    return records_event if source.format == "records" else raw_event

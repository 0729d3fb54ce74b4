"""Whether an MQTT broker can be reached and lets us in: one connection, with a session of its own that ends with it."""

import secrets
from dataclasses import replace

from bridge.core import limits
from bridge.sources.push.mqtt_address import MqttAddress, MqttTrouble
from bridge.sources.push.mqtt_client import MqttConnection


async def mqtt_problem(address: MqttAddress) -> str:
    """Return what keeps us out, in one line; empty when nothing does. The sources' own sessions are not touched."""
    connection = MqttConnection(
        replace(address, session_expiry_s=0, will=None),
        client_id=f"bridge-doctor-{secrets.token_hex(4)}",
        begin=lambda _session, _identifiers: None,
        take=lambda _message: None,
        skip=lambda _message: None,
        packet_max_bytes=limits.MIB,
        wall_ms=lambda: 0,
    )
    try:
        await connection.open()
    except MqttTrouble as error:
        return str(error)
    await connection.close()
    return ""

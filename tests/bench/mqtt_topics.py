"""A mosquitto with messages that wait for one client, so that a reader is as fast as it can be."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.brokers.mosquitto import MosquittoBroker

CLIENT, TOPIC = "bench", "bench/t"
PAYLOAD_BYTES = 200


@contextmanager
def full_broker(folder: Path, messages: int) -> Iterator[MosquittoBroker]:
    """Yield a broker that keeps so many messages of 200 B, QoS 1, in the session of the client `bench`."""
    # Its own log of every packet, and its saves, would be what is measured.
    broker = MosquittoBroker(folder, settings={"log_type": "information", "autosave_interval": "1800"}).start()
    try:
        _subscribe(broker.port)
        payload = f'{{"n":1,"filler":"{"x" * (PAYLOAD_BYTES - 20)}"}}'
        broker.publish(TOPIC, *[payload] * messages)
        yield broker
    finally:
        broker.kill()


def _subscribe(port: int) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=CLIENT, protocol=paho.MQTTv5)
    kept = Properties(PacketTypes.CONNECT)
    kept.SessionExpiryInterval = 3600
    client.on_subscribe = lambda *_: client.disconnect()
    client.on_connect = lambda *_: client.subscribe(TOPIC, 1)
    client.connect("127.0.0.1", port, clean_start=False, properties=kept)
    client.loop_forever()

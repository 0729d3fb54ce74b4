"""The broker that the tests of MQTT run on does what they take for granted."""

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.brokers.mosquitto import PASSWORD, USER, MosquittoBroker
from tests.harness import wait_for


def listener(broker: MosquittoBroker, name: str, *, port: int | None = None) -> tuple[paho.Client, list[bytes]]:
    got: list[bytes] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=False)
    client.on_message = lambda _client, _data, message: got.append(bytes(message.payload))
    client.connect("127.0.0.1", port or broker.port)
    client.subscribe("t", 1)
    client.loop_start()
    return client, got


def test_keeps_sessions_and_messages_over_a_restart(mosquitto: MosquittoBroker) -> None:
    client, got = listener(mosquitto, "keeper")
    mosquitto.publish("t", "one")
    wait_for(lambda: got == [b"one"])
    client.disconnect()
    client.loop_stop()

    mosquitto.publish("t", "two", "three")
    mosquitto.restart()
    client, got = listener(mosquitto, "keeper")

    wait_for(lambda: got == [b"two", b"three"])
    assert mosquitto.clients() == {"keeper"}
    client.disconnect()
    client.loop_stop()


def test_asks_for_passwords_and_certificates(mosquitto: MosquittoBroker) -> None:
    secret, tls, mutual = (str(port) for port in mosquitto.ports[1:])
    files = mosquitto.certificates
    ca = ["--cafile", str(files.ca)]
    pair = ["--cert", str(files.client_certificate), "--key", str(files.client_key)]

    mosquitto.publish("t", "x", arguments=["-p", secret, "-u", USER, "-P", PASSWORD])
    mosquitto.publish("t", "x", arguments=["-p", tls, *ca])
    mosquitto.publish("t", "x", arguments=["-p", mutual, *ca, *pair])
    for refused in (["-p", secret], ["-p", secret, "-u", USER, "-P", "wrong"], ["-p", mutual, *ca]):
        try:
            mosquitto.publish("t", "x", arguments=refused)
        except AssertionError:
            continue
        raise AssertionError(f"let in: {refused}")

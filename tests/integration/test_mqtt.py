"""A daemon with MQTT sources, fed as devices feed it: mosquitto_pub, paho; invoked, read as a stream, reloaded, restarted."""

import base64
import json
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.brokers.mosquitto import PASSWORD, USER
from tests.harness import wait_for, write_function

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

CODE = """
def handler(event, context):
    return event


def batches(event, context):
    return [record.get("n") for record in event["Records"]]
"""
CONFIG = """
[functions.seen]
code = "{code}"
handler = "app.handler"

[functions.many]
code = "{code}"
handler = "app.batches"

[sources.sensors]
type = "mqtt"
url = "{url}"
topics = ["plant/+/t", "plant/#"]
function = "seen"
format = "iot-rule"
select = "*, topic(2) AS device"

[sources.telemetry]
type = "mqtt"
url = "{url}"
topics = ["telemetry/+"]
format = "records"

[mappings.telemetry]
source = "telemetry"
function = "many"
key = "topic:2"
shards = 2
batch_size = 100
maximum_batching_window_s = 1
"""


@pytest.fixture
def config(tmp_path: Path, mosquitto) -> str:
    code = write_function(tmp_path / "code", CODE)
    return CONFIG.format(code=code, url=mosquitto.url)


def events(daemon, *arguments: str) -> list[dict]:
    found = daemon.cli("events", "list", "--json", "--limit", "100", *arguments)
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def shown(daemon, source: str) -> list[dict]:
    """Return the events of a source as they are stored, oldest first."""
    found = [daemon.cli("events", "show", each["id"], "--json") for each in events(daemon, "--source", source)]
    return [json.loads(each.stdout)["event"] for each in reversed(found)]


def subscribed(broker, count: int) -> None:
    wait_for(lambda: broker.log().count("Sending SUBACK to bridge-") >= count)


def handled(daemon) -> float:
    return daemon.metrics().get('bridge_records_total{mapping="telemetry",outcome="handled"}', 0)


def test_messages_become_invocations_and_a_stream(daemon, mosquitto, config):
    process = daemon(config)
    subscribed(mosquitto, 2)

    mosquitto.publish("plant/7/t", '{"temperature":21.50}')
    mosquitto.publish("plant/8/state", "no json", version="311", qos=0)
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", mosquitto.port)
    client.loop_start()
    infos = [client.publish(f"telemetry/{n % 3}", json.dumps({"n": n}), qos=1) for n in range(60)]
    for info in infos:
        info.wait_for_publish(60)
    client.disconnect()
    client.loop_stop()

    wait_for(lambda: handled(process) == 60)
    wait_for(lambda: [each["state"] for each in events(process, "--source", "sensors")] == ["succeeded"] * 2)
    assert shown(process, "sensors") == [
        {"temperature": 21.5, "device": "7"}, {"data": "bm8ganNvbg==", "device": "8"},
    ]  # fmt: skip
    records = [event["Records"][0] for event in shown(process, "telemetry")]
    assert [json.loads(base64.b64decode(record["payload"]))["n"] for record in records] == list(range(60))
    assert f"mqtt: {mosquitto.url} plant/+/t, plant/#" in process.cli("doctor").stdout
    assert process.terminate() == 0
    assert not mosquitto.clients()


def test_what_comes_while_the_daemon_or_the_broker_is_away_is_there_afterwards(daemon, mosquitto, config):
    process = daemon(config)
    subscribed(mosquitto, 2)
    assert process.terminate() == 0
    mosquitto.publish("telemetry/1", *(f'{{"n":{n}}}' for n in range(30)))

    mosquitto.stop()
    process.start()
    wait_for(lambda: "connection refused" in process.cli("doctor").stdout)
    mosquitto.start()
    wait_for(lambda: handled(process) == 30)
    mosquitto.restart()
    subscribed(mosquitto, 6)
    mosquitto.publish("telemetry/1", *(f'{{"n":{n}}}' for n in range(30, 40)))

    wait_for(lambda: handled(process) >= 40)
    records = [event["Records"][0] for event in shown(process, "telemetry")]
    assert [json.loads(base64.b64decode(record["payload"]))["n"] for record in records] == list(range(40))


def test_a_reload_changes_topics_and_leaves_no_subscription_behind(daemon, mosquitto, config):
    process = daemon(config)
    subscribed(mosquitto, 2)

    process.file.write_text(process.file.read_text().replace('"telemetry/+"', '"other/+"'))
    assert process.cli("reload").returncode == 0
    wait_for(lambda: "Received UNSUBSCRIBE" in mosquitto.log())
    subscribed(mosquitto, 3)
    mosquitto.publish("telemetry/1", '{"n":1}')
    mosquitto.publish("other/1", '{"n":2}')

    wait_for(lambda: handled(process) == 1)
    assert shown(process, "telemetry")[0]["Records"][0]["topic"] == "other/1"


def test_an_oversized_message_is_a_dead_letter_without_its_payload_and_blocks_nothing(daemon, mosquitto, config):
    process = daemon(config.replace('topics = ["plant/+/t", "plant/#"]', 'topics = ["plant/#"]\nversion = "3.1.1"'))
    subscribed(mosquitto, 2)

    for payload in (b"x" * 1_500_000, b"x" * 7_000_000, b'{"n":1}'):
        mosquitto.publish("plant/7/t", payload, version="311")

    wait_for(lambda: len(events(process, "--source", "sensors")) == 1)
    letters = process.cli("dlq", "list", "--json").stdout.splitlines()
    assert len(letters) == 2
    assert process.rss_mib() < 256
    assert "7000000" not in mosquitto.log_tail(5)


def test_doctor_tries_the_broker_where_no_daemon_runs(daemon, mosquitto, config):
    process = daemon(config)
    subscribed(mosquitto, 2)
    assert "max_queued_messages" in process.cli("doctor").stdout
    assert process.terminate() == 0

    def said() -> str:
        return process.cli("--config", str(process.file), "doctor").stdout

    assert said().count("is reached and lets us in") == 2
    mosquitto.stop()
    assert said().count("nobody listens there") == 2


def test_a_wrong_password_is_told_and_a_right_one_read_from_a_file(daemon, mosquitto, config, tmp_path):
    url = mosquitto.endpoints.user
    secret = tmp_path / "password"
    secret.touch(mode=0o600)
    secret.write_text("wrong")
    text = config.replace(
        f'url = "{mosquitto.url}"', f'url = "{url}"\nusername = "{USER}"\npassword = {{ file = "{secret}" }}'
    )
    process = daemon(text)
    wait_for(lambda: "not authorized" in process.cli("doctor").stdout)

    secret.write_text(PASSWORD)
    assert process.cli("reload").returncode == 0
    subscribed(mosquitto, 2)

    assert "not authorized" not in process.cli("doctor").stdout
    assert PASSWORD not in process.log()


def test_a_function_that_is_too_slow_holds_the_broker_back_and_loses_nothing(daemon, mosquitto, config, tmp_path):
    """The lane takes 20 events, the buffer a MiB: of 3 MiB the rest waits at the broker."""
    slow = write_function(tmp_path / "slow", "import time\n\ndef handler(event, context):\n    time.sleep(0.02)\n")
    text = config.replace('handler = "app.handler"', 'handler = "app.handler"\nreserved_concurrency = 4')
    text = text.replace(f'code = "{tmp_path / "code"}"', f'code = "{slow}"', 1)
    text = text.replace('topics = ["plant/+/t", "plant/#"]', 'topics = ["plant/#"]\nbuffer_mb = 1')
    process = daemon("journal = { lane_events_max = 20 }\n" + text)
    subscribed(mosquitto, 2)

    mosquitto.publish("plant/7/t", *(json.dumps({"n": n, "filler": "x" * 6000}) for n in range(500)))
    wait_for(lambda: "messages wait to be stored" in process.cli("doctor").stdout)

    wait_for(lambda: process.metrics()['bridge_events_accepted_total{source="sensors",type="Event"}'] == 500)

    def states() -> set[str]:
        found = events(process, "--source", "sensors", "--limit", "1000")
        assert len(found) == 500
        return {each["state"] for each in found}

    wait_for(lambda: states() == {"succeeded"})
    assert process.rss_mib() < 256

"""`bridge run --local`: a production file that touches no broker."""

import pytest

from bridge.config.connections import connection_values
from bridge.config.load import load
from bridge.config.mappings import mapping_values
from bridge.config.mistakes import ConfigErrors

ARN = "arn:aws:kafka:eu-central-1:123456789012:cluster/orders/1a2b3c-4"
PRODUCTION = f"""\
[connections.main]
type = "kafka"
bootstrap_servers = ["${{KAFKA_1}}"]
tls = {{ ca = "/etc/nowhere/ca.pem" }}
sasl = {{ mechanism = "SCRAM-SHA-512", username = "bridge", password = {{ file = "/run/nowhere/kafka" }} }}
event_source_arn = "{ARN}"

[functions.f]
code = "code"
handler = "app.handler"

[sources.hook]
type = "webhook"
path = "/hook"
verify = "none"

[mappings.orders]
source = "kafka://main/${{TOPIC:-orders}}"
function = "f"
batch_size = 7
consumer_group_id = "production"
group_instance_id = "one"
session_timeout_s = 45
isolation_level = "read_committed"
allow_remote = true
on_failure = "kafka://main/orders-failed"

[mappings.hook]
source = "hook"
function = "f"
"""


def localised(folder, text: str, environ: dict | None = None):
    (folder / "bridge.toml").write_text(text)
    return load(None, environ or {}, local=True).settings


def sources(settings) -> dict[str, str]:
    return {mapping.name: mapping.source for mapping in mapping_values(settings)}


def test_topics_become_streams_of_their_name_and_no_secret_is_needed(folder):
    settings = localised(folder, PRODUCTION)
    orders, hook = mapping_values(settings)

    assert (orders.source, orders.batch_size, orders.on_failure) == ("local://orders?as=kafka", 7, "spill")
    assert (orders.consumer_group_id, orders.group_instance_id, orders.allow_remote) == ("", "", False)
    assert orders.isolation_level == "read_uncommitted"
    assert orders.maximum_batching_window_s == 0.5
    assert orders.event_source_arn == ARN
    assert hook.source == "hook"
    assert connection_values(settings) == {}


def test_the_state_folder_is_one_of_its_own_unless_it_is_named(folder):
    assert localised(folder, PRODUCTION).state == folder / ".bridge-local"
    for written in ("var/s", "${VAR}/s/"):
        text = f'state = "{written}"\n{PRODUCTION}'
        assert localised(folder, text, {"VAR": "var"}).state == folder / "var" / "s-local"
        assert localised(folder, text, {"VAR": "var", "BRIDGE_STATE": "there"}).state == folder / "there"


def test_an_address_in_the_source(folder):
    text = PRODUCTION.replace("kafka://main/${TOPIC:-orders}", "kafka://k:9092/clicks")

    assert sources(localised(folder, text))["orders"] == "local://clicks?as=kafka"


def test_one_topic_read_twice_is_one_stream_and_one_of_another_cluster_is_not(folder):
    functions = "".join(f'[functions.{name}]\ncode = "code"\nhandler = "app.handler"\n' for name in "gh")
    other = '[mappings.{}]\nsource = "kafka://{}/orders"\nfunction = "{}"\n'
    text = PRODUCTION + functions + other.format("again", "main", "g") + other.format("far", "k:9092", "f")

    assert sources(localised(folder, text)) == {
        "orders": "local://orders?as=kafka",
        "hook": "hook",
        "again": "local://orders?as=kafka",
        "far": "local://orders.2?as=kafka",
    }


def test_the_name_of_a_stream_that_is_local_already_is_left_to_it(folder):
    local = '[mappings.own]\nsource = "local://orders?as=kafka"\nfunction = "f"\nshards = 8\n'

    found = sources(localised(folder, PRODUCTION + local))

    assert (found["orders"], found["own"]) == ("local://orders.2?as=kafka", "local://orders?as=kafka")


STREAM = "arn:aws:kinesis:eu-central-1:123456789012:stream/orders"
TABLE = "arn:aws:dynamodb:eu-central-1:123456789012:table/carts/stream/2026-01-31T08:00:00.000"


def test_streams_of_aws_become_streams_of_their_name_and_show_their_arns(folder):
    aws = '[connections.aws]\ntype = "aws"\nregion = "eu-central-1"\nsecret_access_key = { env = "MISSING" }\n'
    mapping = '[mappings.{}]\nsource = "{}"\nfunction = "f"\nstarting_position = "LATEST"\n'
    named = mapping.format("named", "kinesis://aws/clicks") + "tumbling_window_s = 60\n"
    by_arn = mapping.format("stream", STREAM) + f'connection = "aws"\non_failure = "{STREAM}"\n'
    table = mapping.format("table", TABLE)

    found = {each.name: each for each in mapping_values(localised(folder, PRODUCTION + aws + named + by_arn + table))}

    assert {name: each.source for name, each in found.items() if name != "hook"} == {
        "orders": "local://orders?as=kafka",
        "named": "local://clicks?as=kinesis",
        "stream": "local://orders.2?as=kinesis",
        "table": "local://carts?as=dynamodb",
    }
    assert ("", STREAM, TABLE) == tuple(found[name].event_source_arn for name in ("named", "stream", "table"))
    assert ("", "spill") == (found["stream"].connection, found["stream"].on_failure)
    assert 60 == found["named"].tumbling_window_s


def test_mistakes_keep_their_lines(folder):
    text = PRODUCTION.replace("batch_size = 7", "batch_size = 0").replace('source = "hook"', 'source = "kinesis://x"')
    with pytest.raises(ConfigErrors) as caught:
        localised(folder, text)

    assert [line.partition(": ")[0] for line in caught.value.mistakes] == [
        "bridge.toml:12", "bridge.toml:20", "bridge.toml:29",
    ]  # fmt: skip


MQTT = """
[sources.sensors]
type = "mqtt"
url = "mqtts://${BROKER}:8883"
topics = ["plant/+"]
function = "f"
username = "bridge"
password = { env = "MQTT_PASSWORD" }
tls = { ca = "/etc/nowhere/ca.pem" }
"""


def test_an_mqtt_source_needs_no_secret_and_no_address(folder):
    source = localised(folder, PRODUCTION + MQTT).sources["sensors"]

    assert (source.url, source.topics, source.username, source.password, source.tls) == (
        "mqtt://localhost", ("plant/+",), "", None, None,
    )  # fmt: skip
    plain = MQTT.replace("${BROKER}", "broker")
    assert localised(folder, PRODUCTION + plain).sources["sensors"].url == "mqtts://broker:8883"

"""MQTT sources: their settings, and what does not fit together."""

import pytest

from bridge.config.show import show
from bridge.daemon.mqtt import message_shape, mqtt_address
from bridge.events.mqtt import Message

SOURCE = """\
[functions.f]
code = "code"
handler = "app.handler"
[sources.s]
type = "mqtt"
function = "f"
"""
GOOD = SOURCE + 'url = "mqtt://broker"\ntopics = ["a/#"]\n'


def source(loaded):
    return loaded.settings.sources["s"]


def test_what_is_left_out_has_a_value(load_text):
    settings = source(load_text(GOOD))
    address = mqtt_address(settings)

    assert (settings.version, settings.qos, settings.format, settings.retained) == ("5", 1, "iot-raw", True)
    assert (address.host, address.port, address.tls, address.is_five) == ("broker", 1883, False, True)
    assert address.session_expiry_s == 604_800
    assert settings.form == "mqtt"


def test_everything_reaches_the_client(load_text, folder, pair):
    text = GOOD.replace("mqtt://broker", "mqtts://broker.lan") + (
        'version = "3.1.1"\nusername = "u"\npassword = { env = "P" }\nkeepalive_s = 30\nsession_expiry_s = 0\n'
        'will = { topic = "gone", payload = "x", qos = 1, retain = true }\n'
        'tls = { ca = "cert.pem", cert = "cert.pem", key = "key.pem" }\n'
    )
    loaded = load_text(text, {"P": "very-secret"})
    address = mqtt_address(source(loaded))

    assert (address.port, address.tls, address.is_five, address.keepalive_s) == (8883, True, False, 30)
    assert (address.username, address.password, address.session_expiry_s) == ("u", "very-secret", 0)
    assert (address.ca, address.cert, address.key) == (
        str(folder / "cert.pem"), str(folder / "cert.pem"), str(folder / "key.pem"),
    )  # fmt: skip
    assert address.will is not None
    assert (address.will.topic, address.will.payload, address.will.qos, address.will.retain) == ("gone", b"x", 1, True)
    assert "very-secret" not in show(loaded.settings)
    assert "very-secret" not in repr(address)
    assert source(loaded).secrets() == ("very-secret",)


@pytest.mark.parametrize(
    ("text", "event", "form"),
    [
        ("", b'{"a":1}', "mqtt"),
        ('format = "iot-rule"\nselect = "a AS b"', b'{"b":1}', "mqtt"),
        ('format = "records"', b'{"Records":[{"eventSource":"bridge:mqtt","topic":"t"', "mqtt-records"),
    ],
)
def test_every_format_has_its_shape(load_text, text, event, form):
    settings = source(load_text(GOOD + text))

    assert message_shape(settings)(Message("t", b'{"a":1}'))[0].startswith(event)
    assert settings.form == form


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (SOURCE + 'topics = ["a"]', "4: sources.s.url: missing: The broker: mqtt://host[:port], or mqtts:// for TLS"),
        (SOURCE + 'topics = ["a"]\nurl = "tcp://b"', "8: sources.s.url: must be mqtt://host, mqtts://host (TLS), or with a port: mqtt://host:1883"),
        (SOURCE + 'topics = ["a"]\nurl = "mqtt://b:99999"', "8: sources.s.url: must be mqtt://host, mqtts://host (TLS), or with a port: mqtt://host:1883"),
        (SOURCE + 'topics = ["a"]\nurl = "mqtt://u:p@b"', "8: sources.s.url: no user or password in the URL; write username and password"),
        (SOURCE + 'topics = ["a"]\nurl = "mqtt://b/a/#"', "8: sources.s.url: a broker's URL ends with its host or port; topics are written in topics"),
        (SOURCE + 'url = "mqtt://b"\ntopics = []', "8: sources.s.topics: must have at least 1 item"),
        (SOURCE + 'url = "mqtt://b"\ntopics = ["ok", "a/#/b"]', "8: sources.s.topics[1]: # may only be the last level; here it is level 2 of 3"),
        (SOURCE + 'url = "mqtt://b"\ntopics = ["a+/b"]', "8: sources.s.topics[0]: + stands alone in a level; here it is in 'a+', level 1"),
        (SOURCE + 'url = "mqtt://b"\ntopics = ["a/+/c", "$share/g/a/b/+"]', '8: sources.s.topics: "$share/g/a/b/+" overlaps "a/+/c": what both match comes twice, to different daemons'),
        (GOOD + 'username = "u"\ninsecure = true\npassword = "literal"', '11: sources.s.password: a secret is not written into the file; write { env = "NAME" } or { file = "path" }'),
        (GOOD + 'password = { env = "P" }\nusername = "u"', "7: sources.s.url: a password would pass in plain text: write mqtts://, or insecure = true"),
        (GOOD.replace("//broker", "//localhost") + 'password = { env = "P" }', "4: sources.s.username: missing: password is there"),
        (GOOD + 'format = "iot-rule"', '4: sources.s.select: missing: iot-rule selects; write select = "*, topic() AS topic"'),
        (GOOD + 'select = "*"', '9: sources.s.select: only with format = "iot-rule"'),
        (GOOD + 'format = "iot-rule"\nselect = "*, topic(0)"', "10: sources.s.select: topic(n) counts levels from 1 (character 10)"),
        (GOOD + 'format = "raw"', '9: sources.s.format: must be "iot-raw", "iot-rule" or "records"'),
        (GOOD + 'version = "4"', '9: sources.s.version: must be "5" or "3.1.1"'),
        (GOOD + 'tls = { ca = "cert.pem" }', "9: sources.s.tls: only with mqtts://"),
        (GOOD.replace("mqtt://", "mqtts://") + 'tls = { ca = "code/app.py" }', "9: sources.s.tls.ca: holds no certificate in PEM"),
        (GOOD.replace("mqtt://", "mqtts://") + 'tls = { cert = "code/app.py" }', "9: sources.s.tls.key: missing: a client's certificate is cert and key; cert is there"),
        (GOOD + 'will = { topic = "a/+" }', "9: sources.s.will.topic: a topic that is published to has no + or #"),
        (GOOD + "topic = 'a'", "9: sources.s.topic: unknown key; did you mean topics?"),
        (GOOD + 'client_id = "x"\n' + GOOD[GOOD.index("[sources"):].replace("sources.s", "sources.t") + 'client_id = "x"', "15: sources.t.client_id: is that of sources.s: a broker lets one in and the other out"),
    ],
)  # fmt: skip
def test_a_mistake_has_its_line(mistakes, pair, text, line):
    (mistake,) = mistakes(text, {"P": "secret"})

    assert mistake == f"bridge.toml:{line}"


def test_quality_2_is_taken_for_1_and_said(load_text):
    loaded = load_text(GOOD + "qos = 2")

    (warning,) = loaded.warnings
    assert "sources.s.qos: 1 is used: a message of quality 2 would be confirmed before it is stored" in warning


def test_a_mapping_may_order_by_topic(load_text, mistakes):
    mapping = '[mappings.m]\nsource = "s"\nfunction = "f"\nkey = '

    assert load_text(GOOD + mapping + '"topic:2"').settings.mappings["m"].key == "topic:2"
    assert "topic:LEVEL" in mistakes(GOOD + mapping + '"topic:0"')[0]

"""`mqtt.MqttSessions`: files and the fake keep what was saved last, by name."""

from pathlib import Path

import pytest

from bridge.core.mqtt import MqttSession, MqttSessions
from bridge.store.mqtt_sessions import FileMqttSessions
from bridge.testing.mqtt import MemoryMqttSessions


@pytest.fixture(params=["file", "memory"])
def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> MqttSessions:
    return MemoryMqttSessions() if request.param == "memory" else FileMqttSessions(tmp_path / "mqtt")


async def test_what_was_saved_last_is_there_by_its_name(sessions: MqttSessions) -> None:
    first = MqttSession(client_id="a", broker="b:1883 MQTT 5")
    second = MqttSession(client_id="a", broker="b:1883 MQTT 5", filters=("1 ü/#", "0 $share/g/+"))

    assert await sessions.load("one") is None
    await sessions.save("one", first)
    await sessions.save("two", first)
    await sessions.save("one", second)

    assert await sessions.load("one") == second
    assert await sessions.load("two") == first


async def test_a_file_that_is_none_is_no_session(tmp_path: Path) -> None:
    sessions = FileMqttSessions(tmp_path)
    for text in ("", "{", "[]", '{"client_id":"a"}'):
        (tmp_path / "one.json").write_text(text)
        assert await sessions.load("one") is None

"""The sources of a file that is tried which run by themselves: they do not run, they are given events by hand."""

from typing import TYPE_CHECKING

from bridge.core.errors import ConfigError
from bridge.core.push import Feedable
from bridge.daemon.mqtt import MqttMaker
from bridge.daemon.push import Maker, PushParts
from bridge.daemon.schedules import ScheduleMaker
from bridge.testing.mqtt import MemoryMqttSessions
from bridge.testing.schedules import MemoryScheduleStates

if TYPE_CHECKING:
    from bridge.core.ports import DeadLetters, Journal


def trial_sources(parts: PushParts, *, journal: "Journal", dead_letters: "DeadLetters") -> dict[str, Feedable]:
    """Return the MQTT sources and schedules of a file, by name. Raises ConfigError."""
    makers: dict[str, Maker] = {
        "mqtt": MqttMaker(dead_letters, MemoryMqttSessions()),
        "schedule": ScheduleMaker(journal, MemoryScheduleStates()),
    }
    found: dict[str, Feedable] = {}
    for name, source in parts.settings.sources.items():
        if name in parts.settings.webhooks:
            continue
        made = makers[source.type](name, source, parts)
        if not isinstance(made, Feedable):
            raise ConfigError(f"sources.{name}: a source of type {source.type} takes nothing by hand")
        found[name] = made
    return found

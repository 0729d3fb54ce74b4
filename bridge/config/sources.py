"""`[sources.X]`: the kinds of push sources there are."""

from typing import Annotated, Any, Final, TypeAlias

from pydantic import Discriminator, Tag

from bridge.config.mistakes import listing
from bridge.config.mqtt import MqttSettings
from bridge.config.schedules import ScheduleSettings
from bridge.config.webhooks import WebhookSettings

SOURCE_TYPES: Final = ("webhook", "mqtt", "schedule")
TYPE_TEXT: Final = listing(f'"{word}"' for word in SOURCE_TYPES)


def _type_of(value: Any) -> str | None:
    if isinstance(value, WebhookSettings | MqttSettings | ScheduleSettings):
        return f"{value.type} source"
    if not isinstance(value, dict):
        return "webhook source"  # told as not being a table
    kind = value.get("type", "webhook")  # where it is missing, the webhook's own section tells that
    return f"{kind} source" if isinstance(kind, str) and kind in SOURCE_TYPES else None


SourceSettings: TypeAlias = Annotated[
    # No key has the name of a tag: places of mistakes are told without the tags that pydantic puts into them.
    Annotated[WebhookSettings, Tag("webhook source")]
    | Annotated[MqttSettings, Tag("mqtt source")]
    | Annotated[ScheduleSettings, Tag("schedule source")],
    Discriminator(_type_of, custom_error_type="source", custom_error_message=f"must be {TYPE_TEXT}"),
]
"""Any push source, by its `type`."""

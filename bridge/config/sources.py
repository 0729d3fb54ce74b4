"""`[sources.X]`: the kinds of push sources there are."""

from typing import TypeAlias

from bridge.config.webhooks import WebhookSettings

SourceSettings: TypeAlias = WebhookSettings
"""Any push source, by its `type`."""

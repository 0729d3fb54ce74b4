"""The endpoint that clears what Lambda's API made: for trials, where the file says so."""

from collections.abc import Mapping
from typing import Final

import structlog

from bridge.api.fields import Fields
from bridge.api.http import Answer, HttpError, Request, json_answer
from bridge.api.services import Services

log = structlog.get_logger("bridge.api")

_REFUSED: Final = "nothing is cleared here: the daemon's file needs [dev] reset = true, which loopback alone may have"


class ResetEndpoints:
    """Handlers of `/admin/v1/reset`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def look(self, request: Request) -> Answer:
        """What a reset would clear, in numbers."""
        Fields.of_query(request).finish()
        self._check()
        return json_answer({"cleared": dict(self._counts())})

    async def clear(self, request: Request) -> Answer:
        """Clear it: functions, layers, mappings, what hangs on functions, and the numbers that were given."""
        (await Fields.of_body(request)).finish()
        self._check()
        made, counts = self._services.made, self._counts()
        if made is not None:
            async with made.changing():
                counts = self._counts()  # as they are once nobody changes them
                if self._services.made_mappings is not None:
                    await self._services.made_mappings.clear()
                await made.clear()
        log.warning("made_state_cleared", **counts)
        return json_answer({"cleared": dict(counts)})

    def _check(self) -> None:
        if not self._services.may_reset():
            raise HttpError(403, _REFUSED)

    def _counts(self) -> Mapping[str, int]:
        made = self._services.made
        if made is None:
            return {}
        mappings = self._services.made_mappings
        return {
            **made.counts(),
            "mappings": 0 if mappings is None else len(mappings.values()),
        }

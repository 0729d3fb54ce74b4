"""Endpoints of the targets of records: what waits for which, try again now, give one up."""

from typing import Final

from bridge.api import views
from bridge.api.fields import Fields
from bridge.api.http import Answer, HttpError, Request, json_answer
from bridge.api.services import Services
from bridge.core.outcome import TargetPlace, TargetStatus

_NUMBER_MAX: Final = 2**53


class TargetEndpoints:
    """Handlers of `/admin/v1/targets…`."""

    def __init__(self, services: Services) -> None:
        self._sender = services.sender
        self._outbox = services.outbox

    async def page(self, request: Request) -> Answer:
        """Every target that something waits or is kept for."""
        Fields.of_query(request).finish()
        return json_answer({"targets": [views.target_view(status) for status in await self._sender.status()]})

    async def records(self, request: Request) -> Answer:
        """What waits, in order of arrival: of `target`, or of all; the records of successes with `whole`."""
        fields = Fields.of_query(request)
        place, limit = await self._place(fields), fields.page()
        after, whole = fields.integer("after", low=0, high=_NUMBER_MAX), fields.boolean("whole")
        fields.finish()
        found = await self._outbox.page(place, after=-1 if after is None else after, limit=limit)
        return json_answer(
            {
                "records": [views.outbox_view(entry, whole=whole) for entry in found],
                "next": found[-1].number if found else None,
            }
        )

    async def push(self, request: Request) -> Answer:
        """Try `target`, or all, again now: `{"pushed": how many targets}`."""
        fields = await Fields.of_body(request)
        place = await self._place(fields)
        fields.finish()
        return json_answer({"pushed": await self._sender.push(place)})

    async def give_up(self, request: Request) -> Answer:
        """Send no more to `target`: failures stay dead letters, records of successes are deleted."""
        fields = await Fields.of_body(request)
        place, dry_run = await self._place(fields), fields.boolean("dry_run")
        fields.finish()
        if place is None:
            raise fields.wrong("target", "is missing")
        if dry_run:
            found = [status for status in await self._sender.status() if status.place == place]  # none: just delivered
            return json_answer({"count": sum(each.waiting + each.kept for each in found), "dry_run": True})
        failures, successes = await self._sender.give_up(place)
        return json_answer({"dead_letters": failures, "deleted": successes, "dry_run": False})

    async def _place(self, fields: Fields) -> TargetPlace | None:
        """Take `target` and `connection`: one that something waits for; None where none is named."""
        target, connection = fields.text("target"), fields.text("connection")
        if target is None:
            return None
        known = [status for status in await self._sender.status() if _fits(status, target, connection)]
        if not known:
            raise HttpError(404, f"nothing waits for {target}")
        if len(known) > 1:
            names = ", ".join(status.place.connection or "none" for status in known)
            raise HttpError(409, f"{target} is reached by several connections: name one of {names}")
        return known[0].place


def _fits(status: TargetStatus, target: str, connection: str | None) -> bool:
    return status.place.target == target and connection in (None, status.place.connection)

"""Makes schedules of their settings; the adapter loads where a file has one."""

from typing import TYPE_CHECKING

from bridge.core.ports import Journal, Selection

if TYPE_CHECKING:
    from bridge.config.schedules import ScheduleSettings
    from bridge.core.push import PushSource
    from bridge.core.schedules import ScheduleStates
    from bridge.daemon.push import PushParts


class ScheduleMaker:
    """`push.Maker` of schedules, over the journal and the store that they need beside an intake."""

    def __init__(self, journal: Journal, states: "ScheduleStates") -> None:
        self._journal = journal
        self._states = states

    def __call__(self, name: str, source: "ScheduleSettings", parts: "PushParts", /) -> "PushSource":
        """Return a schedule, not yet running."""
        from bridge.sources.push.schedule import ScheduleSource, ScheduleSpec

        spec = ScheduleSpec(
            name=name,
            expression=source.schedule,
            zone=source.timezone,
            missed=source.missed,
            function=source.function or "",
            payload=(source.input or "").strip().encode(),
            region=parts.settings.region,
            account=parts.settings.account,
        )
        return ScheduleSource(
            spec,
            intake=parts.intake,
            states=self._states,
            is_stored=self._is_stored,
            journal_end=lambda: self._journal.end,
            clock=parts.clock,
        )

    async def _is_stored(self, source: str, request_id: str, position: int) -> bool:
        # A journal begun anew since ends below the position: then all of it is looked through.
        after = position - 1 if position <= self._journal.end else -1
        selection = Selection(source=source, ids=frozenset({request_id}))
        async for records in self._journal.scan(selection, after=after):
            if records:
                return True
        return False

"""Endpoints of event source mappings: look, pause, resume, move their marks."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from bridge.api import views
from bridge.api.fields import Fields
from bridge.api.http import Answer, HttpError, Request, json_answer
from bridge.api.services import Services
from bridge.core.errors import MappingNotFound, SourceError
from bridge.core.mapping import StartingPosition
from bridge.core.sources import MappingStatus
from bridge.core.stream import shard_index

_ACTIONS: Final = ("pause", "resume", "reset")


class MappingEndpoints:
    """Handlers of `/admin/v1/mappings…`."""

    def __init__(self, services: Services) -> None:
        self._mappings = services.mappings
        self._made = services.made_mappings
        self._clock = services.clock

    async def page(self, request: Request) -> Answer:
        """All, by name; `quick`: no look at how far paused ones are."""
        fields = Fields.of_query(request)
        quick = fields.boolean("quick")
        fields.finish()
        if not quick:
            await self._mappings.look()
        return json_answer({"mappings": [views.mapping_view(status) for status in self._mappings.status()]})

    async def one(self, request: Request) -> Answer:
        """One, with its settings and its shards."""
        Fields.of_query(request).finish()
        await self._mappings.look()
        return json_answer(views.whole_mapping(self._known(request.params["name"])))

    async def act(self, request: Request) -> Answer:
        """Pause or resume it, or move its marks (`position`, and `timestamp` with AT_TIMESTAMP)."""
        action, name = request.params["action"], request.params["name"]
        fields = await Fields.of_body(request)
        if action not in _ACTIONS:
            raise HttpError(404, f"a mapping can be told to {', '.join(_ACTIONS)}")
        self._known(name)
        if action == "reset":
            return await self._reset(name, fields)
        fields.finish()
        if self._made is not None and self._made.get(name) is not None:
            await self._made.enable(name, enabled=action == "resume")
            return json_answer(views.whole_mapping(self._known(name)))
        work: Callable[[str], Awaitable[MappingStatus]] = {
            "pause": self._mappings.pause,
            "resume": self._mappings.resume,
        }[action]
        with _refused():
            return json_answer(views.whole_mapping(await work(name)))

    async def _reset(self, name: str, fields: Fields) -> Answer:
        words = tuple(position.value for position in StartingPosition)
        position, timestamp = fields.text("position"), fields.time("timestamp")
        fields.finish()
        if position not in words:
            raise fields.wrong("position", f"must be {', '.join(words[:-1])} or {words[-1]}")
        start = StartingPosition(position)
        if (start is StartingPosition.AT_TIMESTAMP) is not (timestamp is not None):
            raise fields.wrong("timestamp", "belongs to AT_TIMESTAMP, which needs it")
        if timestamp is not None and timestamp > self._clock.time():
            raise fields.wrong("timestamp", "must not be in the future")
        with _refused():
            marks = await self._mappings.reset(name, start, timestamp=timestamp)
        return json_answer({
            "name": name,
            "marks": {shard: views.position_view(marks[shard].position) for shard in sorted(marks, key=shard_index)},
        })  # fmt: skip

    def _known(self, name: str) -> MappingStatus:
        known = {status.mapping.name: status for status in self._mappings.status()}
        if name not in known:
            raise HttpError(404, f"no mapping {name[:100]}; known are {', '.join(known) or 'none'}")
        return known[name]


@contextmanager
def _refused() -> Iterator[None]:
    """Answer what keeps a mapping from being acted upon: gone meanwhile, or its source says no."""
    try:
        yield
    except MappingNotFound as error:
        raise HttpError(404, str(error) or "the mapping is gone") from error
    except SourceError as error:
        raise HttpError(409, str(error)) from error

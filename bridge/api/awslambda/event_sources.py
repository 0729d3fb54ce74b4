"""CreateEventSourceMapping, Get, List, Update and Delete of Lambda's API (semantics 3.1, 3.2)."""

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from bridge.api.awslambda import mapping_shapes as shapes
from bridge.api.awslambda.errors import Refused, invalid, not_found
from bridge.api.awslambda.mapped import MadeMappings
from bridge.api.awslambda.mapping_views import made_mapping, mapping_view
from bridge.api.awslambda.names import FunctionName, read_name
from bridge.api.awslambda.paging import page
from bridge.api.awslambda.shapes import Body, check_tag_count, tags
from bridge.api.http import Answer, Request, json_answer
from bridge.core.errors import FunctionNotFound
from bridge.core.function import LATEST, Function, FunctionVersion, function_arn, plain_name, split_target
from bridge.core.mapping import USER_ACTION, MappingState
from bridge.core.ports import Clock
from bridge.core.sources import MappingStatus
from bridge.registry.access import Caller
from bridge.registry.attached import place_arn
from bridge.registry.mapped import MadeMapping

PAGE_MAX: Final = 100
"""API_ListEventSourceMappings."""
Reader = Callable[[Request, Caller], Awaitable[Answer]]
_UNKNOWN: Final = "The resource you requested does not exist."
_KIND: Final = ":event-source-mapping:"


class EventSourceOperations:
    """Handlers of event source mappings.

    Args:
        mappings: those that the API makes; None: it makes none.
        statuses: how all mappings are that run, those of the file too.
        functions: all functions.
        clock: the daemon's.
    """

    def __init__(
        self,
        mappings: MadeMappings | None,
        *,
        statuses: Callable[[], Sequence[MappingStatus]],
        functions: Callable[[], Sequence[Function]],
        clock: Clock,
    ) -> None:
        self._made = mappings
        self._all_statuses = statuses
        self._functions = functions
        self._clock = clock

    # --- looking ------------------------------------------------------------------------------------------------

    async def list(self, request: Request, caller: Caller) -> Answer:
        """API_ListEventSourceMappings, by function or source."""
        query = dict(request.query())
        wanted = query.get("FunctionName")
        name = read_name(wanted, caller) if wanted else None
        source = query.get("EventSourceArn")
        found = [
            status
            for status in self._statuses(caller)
            if (name is None or _is_of(status.mapping.function, name))
            and (not source or self._arn(status, caller) == source)
        ]
        return page(
            query,
            "EventSourceMappings",
            found,
            key=lambda status: status.mapping.uuid,
            show=lambda status: self._view(status, caller),
            most=PAGE_MAX,
        )

    async def get(self, request: Request, caller: Caller) -> Answer:
        """API_GetEventSourceMapping."""
        return json_answer(self._view(self._status(request, caller), caller))

    def _statuses(self, caller: Caller) -> Sequence[MappingStatus]:
        return [each for each in self._all_statuses() if caller.owns(split_target(each.mapping.function)[0])]

    def _status(self, request: Request, caller: Caller) -> MappingStatus:
        arn = request.params.get("arn", "")
        place, _, wanted = arn.rpartition(_KIND) if arn else ("", "", request.params["uuid"])
        if arn and (place.split(":", 3)[2:] != ["lambda", f"{caller.region}:{caller.account}"]):
            raise not_found(_UNKNOWN)
        wanted = wanted.lower()
        for status in self._statuses(caller):
            if status.mapping.uuid == wanted:
                return status
        raise not_found(_UNKNOWN)

    def _view(self, status: MappingStatus, caller: Caller) -> dict[str, Any]:
        made = self._kept(status)
        if made is None:
            return mapping_view(status, caller)
        return made_mapping(made, caller, state=status.state, status=status)

    def _kept(self, status: MappingStatus) -> MadeMapping | None:
        return None if self._made is None else self._made.get(status.mapping.name)

    # --- changing -----------------------------------------------------------------------------------------------

    async def create(self, request: Request, caller: Caller) -> Answer:
        """API_CreateEventSourceMapping."""
        assert self._made is not None
        body = Body.of(await request.body())
        target = self._target(body, caller, required=True)
        kind, named = shapes.source(body)
        key = str(uuid.uuid4())
        arn = named.get("EventSourceArn", "")
        given = {
            **named,
            **shapes.begins(body, kind, arn, now=self._clock.time()),
            **shapes.group(body, kind, is_managed=bool(arn), uuid=key),
            **shapes.settings(body, kind),
        }
        defaults = shapes.DEFAULTS["kinesis" if kind == "dynamodb" else kind]
        enabled = body.get("Enabled", bool)
        made = MadeMapping(
            uuid=key,
            function=target.target,
            kind=kind,
            settings=_without_none({**defaults, **given}),
            enabled=enabled is not False,
            modified_at=0.0,
            tags=tags(body),
        )
        shapes.check(made.settings, kind)
        self._check_access(made)
        await self._check_role(made)
        await self._check_source(made)
        async with self._made.changing():
            self._check_alone(made, caller)
            made = await self._made.save(made)
        return json_answer(made_mapping(made, caller, state=MappingState.CREATING), status=202)

    async def update(self, request: Request, caller: Caller) -> Answer:
        """API_UpdateEventSourceMapping: what is left out stays, and what names the source stays always."""
        assert self._made is not None
        body = Body.of(await request.body())
        before = self._changeable(request, caller)
        name = self._target(body, caller, required=False) if body.has("FunctionName") else None
        given = shapes.settings(body, before.kind)
        enabled = body.get("Enabled", bool)
        async with self._made.changing():
            before = self._changeable(request, caller)
            self._made.check_idle(before.uuid, "update")
            after = replace(
                before,
                settings=_without_none({**before.settings, **given}),
                function=before.function if name is None else name.target,
                enabled=before.enabled if enabled is None else enabled,
            )
            shapes.check(after.settings, after.kind)
            self._check_access(after)
            await self._check_role(after)
            self._check_alone(after, caller)
            status = self._status(request, caller)
            after = await self._made.save(after)
        state = MappingState.UPDATING
        if after.enabled is not before.enabled:
            state = MappingState.ENABLING if after.enabled else MappingState.DISABLING
        shown = made_mapping(after, caller, state=state, status=replace(status, reason=USER_ACTION))
        return json_answer(shown, status=202)

    async def delete(self, request: Request, caller: Caller) -> Answer:
        """API_DeleteEventSourceMapping: what runs of it ends first."""
        assert self._made is not None
        async with self._made.changing():
            made = self._changeable(request, caller)
            self._made.check_idle(made.uuid, "delete")
            status = self._status(request, caller)
            await self._made.delete(made)
        shown = made_mapping(made, caller, state=MappingState.DELETING, status=replace(status, reason=USER_ACTION))
        return json_answer(shown, status=202)

    # --- tags ---------------------------------------------------------------------------------------------------

    async def list_tags(self, request: Request, caller: Caller) -> Answer:
        """API_ListTags, of a mapping's ARN."""
        made = self._kept(self._status(request, caller))
        return json_answer({"Tags": {} if made is None else dict(made.tags)})

    async def tag(self, request: Request, caller: Caller) -> Answer:
        """API_TagResource, likewise."""
        new = tags(Body.of(await request.body()))
        return await self._retag(request, caller, lambda before: {**before, **new})

    async def untag(self, request: Request, caller: Caller) -> Answer:
        """API_UntagResource, likewise; keys that it does not have are fine."""
        keys = {value for key, value in request.query() if key == "tagKeys"}
        return await self._retag(
            request, caller, lambda before: {key: value for key, value in before.items() if key not in keys}
        )

    async def _retag(
        self, request: Request, caller: Caller, change: Callable[[Mapping[str, str]], Mapping[str, str]]
    ) -> Answer:
        self._changeable(request, caller)
        assert self._made is not None
        async with self._made.changing():
            made = self._changeable(request, caller)
            after = change(made.tags)
            check_tag_count(after)
            await self._made.keep_tags(made, after)
        return Answer(204)

    def _changeable(self, request: Request, caller: Caller) -> MadeMapping:
        status = self._status(request, caller)
        made = self._kept(status)
        if made is None:
            if status.mapping.is_made:
                raise not_found(_UNKNOWN)  # on its way out
            raise invalid(
                f"The event source mapping {status.mapping.uuid} ({status.mapping.name}) is declared in the daemon's "
                "file, which alone changes it (then `bridge reload`)"
            )
        return made

    # --- checks -------------------------------------------------------------------------------------------------

    def _target(self, body: Body, caller: Caller, *, required: bool) -> FunctionName:
        written = body.text("FunctionName", required=required)
        body.finish()
        name = read_name(written or "", caller)
        self._version(name)
        return name

    def _version(self, name: FunctionName) -> FunctionVersion:
        for function in self._functions():
            if function.name == name.name:
                try:
                    return function.version(name.qualifier)
                except FunctionNotFound:
                    break
        raise invalid("Function does not exist")

    def _check_access(self, made: MadeMapping) -> None:
        """Refuse credentials that nobody here can look up: those of a cluster are its connection's."""
        assert self._made is not None
        asked = [each["Type"] for each in made.settings.get("SourceAccessConfigurations", ())]
        if made.kind != "kafka" or self._made.is_declared(made):
            return
        if made.arn:
            raise invalid(
                f"The cluster {made.arn} is not reached from here: the daemon's file needs a [connections.X] of type "
                "kafka with this event_source_arn"
            )
        if (
            made.settings.get("DestinationConfig", {})
            .get("OnFailure", {})
            .get("Destination", "")
            .startswith("kafka://")
        ):
            raise invalid(
                "A topic as the destination needs a [connections.X] of type kafka with these bootstrap_servers in the "
                "daemon's file"
            )
        if secret := [kind for kind in asked if kind not in shapes.NETWORK]:
            raise invalid(
                f"SourceAccessConfigurations ({', '.join(secret)}) are not looked up here: the daemon's file needs a "
                "[connections.X] of type kafka with these bootstrap_servers, whose tls and sasl then count"
            )

    async def _check_role(self, made: MadeMapping) -> None:
        """Refuse a source that the function's role may not read, and a destination that it may not write to."""
        assert self._made is not None
        if said := await self._made.refused(made):
            raise invalid(said)

    async def _check_source(self, made: MadeMapping) -> None:
        assert self._made is not None
        look = await self._made.look(made)
        if look.problem:
            raise invalid(look.problem)
        timeout_s = self._version(FunctionName(*split_target(made.function))).timeout_s
        if look.visibility_s is not None and look.visibility_s < timeout_s:
            raise invalid(
                f"Queue visibility timeout: {look.visibility_s:.0f} seconds is less than Function timeout: "
                f"{timeout_s} seconds"
            )

    def _check_alone(self, made: MadeMapping, caller: Caller) -> None:
        """Refuse a second mapping of one source and one function, in AWS's words."""
        assert self._made is not None
        source = self._made.as_runs(made).source
        function, qualifier = split_target(made.function)
        for status in self._all_statuses():
            other = status.mapping
            name, _, other_qualifier = other.function.partition(":")
            is_same = (name, other_qualifier or LATEST) == (function, qualifier or LATEST) and (
                other.source == source
                or (made.arn != "" and made.kind != "kafka" and self._arn(status, caller) == made.arn)
            )
            if is_same and other.name != made.uuid and status.state is not MappingState.DELETING:
                raise _conflict(made, other.uuid, caller)

    def _arn(self, status: MappingStatus, caller: Caller) -> object:
        return self._view(status, caller).get("EventSourceArn")


def _conflict(made: MadeMapping, key: str, caller: Caller) -> Refused:
    name, _, qualifier = made.function.partition(":")
    if made.kind == "kafka":
        arn = place_arn((function_arn(name, region=caller.region, account=caller.account), qualifier))
        text = (
            f'An event source mapping with event source ("{made.arn or ",".join(made.servers)}"), function ("{arn}"), '
            f'topics ("{made.topic}") already exists. '
        )
    elif made.kind == "sqs":
        name = plain_name(name)
        text = f'An event source mapping with SQS arn (" {made.arn} ") and function (" {name} ") already exists. '
    else:
        name = plain_name(name)
        text = f'The event source arn (" {made.arn} ") and function (" {name} ") provided mapping already exists. '
    text += f"Please update or delete the existing mapping with UUID {key}"
    return Refused("ResourceConflictException", text, status=409)


def _is_of(target: str, name: FunctionName) -> bool:
    function, qualifier = split_target(target)
    return function == name.name and (not name.qualifier or name.qualifier == (qualifier or LATEST))


def _without_none(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def by_arn(functions: Reader, mappings: Reader) -> Reader:
    """Return what answers for the ARN in the path: of a function, or of a mapping."""

    async def answer(request: Request, caller: Caller) -> Answer:
        return await (mappings if _KIND in request.params["arn"] else functions)(request, caller)

    return answer

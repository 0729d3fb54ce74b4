"""Event-invoke configurations and tags of functions."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from bridge.api.awslambda import shapes, views
from bridge.api.awslambda.control import MadeFunctions
from bridge.api.awslambda.errors import Refused, invalid, not_found
from bridge.api.awslambda.names import FunctionName, read_name
from bridge.api.awslambda.roles import RoleFinder, check_destinations
from bridge.api.awslambda.shapes import Body
from bridge.api.http import Answer, Request, json_answer
from bridge.core import limits
from bridge.core.function import LATEST
from bridge.core.ports import Clock
from bridge.registry.access import Caller
from bridge.registry.made import MadeFunction
from bridge.registry.roles import is_made_up

_SERVICES: Final = ("sqs", "sns", "lambda", "events")


class SharingOperations:
    """Handlers of event-invoke configurations and tags.

    Args:
        made: the functions.
        clock: the daemon's.
        roles: the execution roles there are; None: nothing is asked of any.
    """

    def __init__(self, made: MadeFunctions, clock: Clock, *, roles: RoleFinder | None = None) -> None:
        self._made = made
        self._clock = clock
        self._roles = roles

    # --- event-invoke configurations ----------------------------------------------------------------------------

    async def put_event_invoke(self, request: Request, caller: Caller) -> Answer:
        """API_PutFunctionEventInvokeConfig: what is left out has its default again."""
        return await self._set_event_invoke(request, caller, merges=False)

    async def update_event_invoke(self, request: Request, caller: Caller) -> Answer:
        """API_UpdateFunctionEventInvokeConfig: what is left out stays."""
        return await self._set_event_invoke(request, caller, merges=True)

    async def _set_event_invoke(self, request: Request, caller: Caller, *, merges: bool) -> Answer:
        body = Body.of(await request.body())
        name = self._named(request, caller)
        given = _event_invoke(body)
        if not given:
            raise invalid("You must specify at least one of error handling or destination setting.")
        qualifier = name.qualifier or LATEST
        async with self._made.changing():
            made = self._existing(name)
            before = made.event_invokes.get(qualifier)
            if merges and before is None:
                raise self._no_config(name)
            self._check_destinations(name, given)
            await check_destinations(self._roles, self._role(made, qualifier), given)
            config = {**(before or {}), **given} if merges else given
            if merges and before is not None and "DestinationConfig" in given:
                config["DestinationConfig"] = {**before.get("DestinationConfig", {}), **given["DestinationConfig"]}
            config["LastModified"] = round(self._clock.time(), 3)
            await self._made.save(replace(made, event_invokes={**made.event_invokes, qualifier: config}))
        return json_answer(views.made_event_invoke(config, self._arn(name)))

    async def delete_event_invoke(self, request: Request, caller: Caller) -> Answer:
        """API_DeleteFunctionEventInvokeConfig."""
        name = self._named(request, caller)
        qualifier = name.qualifier or LATEST
        async with self._made.changing():
            made = self._existing(name)
            if qualifier not in made.event_invokes:
                raise self._no_config(name)
            kept = {key: config for key, config in made.event_invokes.items() if key != qualifier}
            await self._made.save(replace(made, event_invokes=kept))
        return Answer(204)

    def _named(self, request: Request, caller: Caller) -> FunctionName:
        return read_name(request.params["fn"], caller, qualifier=dict(request.query()).get("Qualifier"))

    def _existing(self, name: FunctionName) -> MadeFunction:
        made = self._made.extensible(name.name)
        if not made.has(name.qualifier):
            raise not_found("The function doesn't exist.")
        if name.qualifier in ("", LATEST):
            self._made.check_unwritten(name.name, "event_invoke")
        return made

    def _no_config(self, name: FunctionName) -> Refused:
        return not_found(f"The function {self._arn(name)} doesn't have an EventInvokeConfig")

    def _arn(self, name: FunctionName) -> str:
        return f"{self._made.home.arn(name.name)}:{name.qualifier or LATEST}"

    def _role(self, made: MadeFunction, qualifier: str) -> str:
        version = made.find(qualifier)
        role = "" if version is None else str(version.settings.get("Role", ""))
        return "" if made.is_declared and is_made_up(role) else role

    def _check_destinations(self, name: FunctionName, given: Mapping[str, Any]) -> None:
        own = self._made.home.arn(name.name)
        for place in given.get("DestinationConfig", {}).values():
            target = place.get("Destination", "")
            if target == own or target.startswith(f"{own}:"):
                raise invalid("You can't specify the function as a destination for itself.")

    # --- tags ---------------------------------------------------------------------------------------------------

    async def tag(self, request: Request, caller: Caller) -> Answer:
        """API_TagResource."""
        body = Body.of(await request.body())
        name = self._tagged(request, caller)
        new = shapes.tags(body)
        async with self._made.changing():
            made = self._made.extensible(name.name)
            tags = {**made.tags, **new}
            shapes.check_tag_count(tags)
            await self._made.save(replace(made, tags=tags))
        return Answer(204)

    async def untag(self, request: Request, caller: Caller) -> Answer:
        """API_UntagResource."""
        name = self._tagged(request, caller)
        keys = {value for key, value in request.query() if key == "tagKeys"}
        async with self._made.changing():
            made = self._made.extensible(name.name)
            tags = {key: value for key, value in made.tags.items() if key not in keys}
            await self._made.save(replace(made, tags=tags))
        return Answer(204)

    def _tagged(self, request: Request, caller: Caller) -> FunctionName:
        name = read_name(request.params["arn"], caller)
        if name.qualifier:
            raise invalid("Tags on function aliases and versions are not supported. Please specify a function ARN.")
        return name


def _event_invoke(body: Body) -> dict[str, Any]:
    """Return what a request sets, by AWS's names."""
    found: dict[str, Any] = {
        "MaximumRetryAttempts": body.number("MaximumRetryAttempts", 0, limits.ASYNC_RETRY_ATTEMPTS_DEFAULT),
        "MaximumEventAgeInSeconds": body.number(
            "MaximumEventAgeInSeconds", limits.EVENT_AGE_MIN_S, limits.EVENT_AGE_MAX_S
        ),
    }
    destinations = body.inner("DestinationConfig")
    places: dict[str, Any] = {}
    for kind in ("OnSuccess", "OnFailure"):
        inner = None if destinations is None else destinations.inner(kind)
        if inner is not None:
            target = inner.text("Destination", most=350)
            places[kind] = {} if not target else {"Destination": _checked_destination(target)}
    if places:
        found["DestinationConfig"] = places
    body.finish()
    return {name: value for name, value in found.items() if value is not None}


def _checked_destination(target: str) -> str:
    parts = target.split(":", 5)
    if len(parts) != 6 or parts[0] != "arn" or parts[2] not in _SERVICES or not all(parts[3:]):
        raise invalid(f"The destination ARN {target} is invalid.")
    return target

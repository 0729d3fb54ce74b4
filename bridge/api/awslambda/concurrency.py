"""Reserved concurrency of functions, provisioned concurrency of versions and aliases (semantics 5.6)."""

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from bridge.api.awslambda.control import MadeFunctions
from bridge.api.awslambda.errors import Refused, invalid, not_found, violated
from bridge.api.awslambda.names import FunctionName, read_name
from bridge.api.awslambda.paging import page
from bridge.api.awslambda.shapes import Body
from bridge.api.http import Answer, Request, json_answer
from bridge.core.function import LATEST, Function, FunctionVersion, Warmth, space_name
from bridge.core.ports import Clock
from bridge.registry.access import Caller
from bridge.registry.made import MadeAlias, MadeFunction

UNRESERVED_MIN: Final = 100
"""What must be left of the account's concurrency (semantics 5.6)."""
_UNPUBLISHED: Final = "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
_QUALIFIED: Final = (
    "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. Please "
    "specify either a function name or an unqualified function ARN."
)
_PAGE_MOST: Final = 50


def set_aside(functions: Iterable[Function], *, but: str = "") -> int:
    """Return the concurrency that functions keep from the account's: what is reserved, else what is provisioned.

    Args:
        functions: all of the name space.
        but: the name of one that does not count.
    """
    return sum(
        sum(each.provisioned.values()) if each.reserved_concurrency is None else each.reserved_concurrency
        for each in functions
        if each.name != but
    )


def check_provisionable(made: MadeFunction, qualifier: str, alias: MadeAlias | None) -> None:
    """Refuse provisioned concurrency of `$LATEST`, and of a version both by itself and by an alias.

    Args:
        made: the function.
        qualifier: what has, or is to have it.
        alias: as it is to be, where the qualifier is one.
    """
    if alias is not None:
        if alias.version == LATEST:
            raise invalid(_UNPUBLISHED)
        taken = {version for name in made.provisioned if name != qualifier for version in _versions(made, name)}
        if taken & {alias.version, *alias.weights}:
            text = "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
            raise Refused("ResourceConflictException", text, status=409)
    elif any(qualifier in _versions(made, name) for name in made.provisioned if name in made.aliases):
        raise Refused("ResourceConflictException", "Version is pointed by a Provisioned Concurrency alias", status=409)


def _versions(made: MadeFunction, qualifier: str) -> set[str]:
    alias = made.aliases.get(qualifier)
    return {qualifier} if alias is None else {alias.version, *alias.weights}


class ConcurrencyOperations:
    """Handlers of what keeps concurrency from the account's for a function, and provisions it.

    Args:
        made: the functions.
        clock: the daemon's.
        functions: all functions, declared ones too.
        account_concurrency: invocations at once of all those of a name space.
        warmth: how far the workers of a version are.
    """

    def __init__(
        self,
        made: MadeFunctions,
        clock: Clock,
        *,
        functions: Callable[[], Sequence[Function]],
        account_concurrency: Callable[[], int],
        warmth: Callable[[FunctionVersion], Warmth],
    ) -> None:
        self._made = made
        self._clock = clock
        self._functions = functions
        self._account_concurrency = account_concurrency
        self._warmth = warmth

    # --- reserved -----------------------------------------------------------------------------------------------

    async def put_reserved(self, request: Request, caller: Caller) -> Answer:
        """API_PutFunctionConcurrency."""
        body = Body.of(await request.body())
        name = self._unqualified(request, caller)
        wanted = body.number("ReservedConcurrentExecutions", 0, 2**31 - 1, required=True)
        body.finish()
        async with self._made.changing():
            made = self._made.extensible(name.name)
            self._made.check_unwritten(name.name, "reserved_concurrency")
            others = set_aside(self._neighbours(name.name), but=name.name)
            provisioned = sum(made.warmths().values())
            assert wanted is not None
            if wanted < provisioned:
                raise invalid(
                    f"ReservedConcurrentExecutions {wanted} should not be lower than function's total provisioned "
                    f"concurrency [{provisioned}]."
                )
            if wanted and self._account_concurrency() - others - wanted < UNRESERVED_MIN:
                raise invalid(
                    "Specified ReservedConcurrentExecutions for function decreases account's "
                    f"UnreservedConcurrentExecution below its minimum value of [{UNRESERVED_MIN}]."
                )
            await self._made.save(replace(made, reserved=wanted))
        return json_answer({"ReservedConcurrentExecutions": wanted})

    async def delete_reserved(self, request: Request, caller: Caller) -> Answer:
        """API_DeleteFunctionConcurrency."""
        name = self._unqualified(request, caller)
        async with self._made.changing():
            made = self._made.extensible(name.name)
            self._made.check_unwritten(name.name, "reserved_concurrency")
            if made.reserved is not None:
                await self._made.save(replace(made, reserved=None))
        return Answer(204)

    def _unqualified(self, request: Request, caller: Caller) -> FunctionName:
        name = read_name(request.params["fn"], caller)
        if name.qualifier:
            raise invalid(_QUALIFIED)
        return name

    def _neighbours(self, name: str) -> list[Function]:
        """Return the functions of a function's name space, itself included: its limits are theirs."""
        return [each for each in self._functions() if space_name(each.name) == space_name(name)]

    # --- provisioned --------------------------------------------------------------------------------------------

    async def put_provisioned(self, request: Request, caller: Caller) -> Answer:
        """API_PutProvisionedConcurrencyConfig; workers start while the answer is on its way."""
        body = Body.of(await request.body())
        name = _named(request, caller)
        requested = body.number("ProvisionedConcurrentExecutions", 1, 2**31 - 1, required=True)
        body.finish()
        assert requested is not None
        if name.qualifier == LATEST:
            raise invalid(_UNPUBLISHED)
        async with self._made.changing():
            made = self._made.extensible(name.name, qualifier=name.qualifier, of_code=True)
            self._check_there(made, name)
            check_provisionable(made, name.qualifier, made.aliases.get(name.qualifier))
            self._check_limits(made, name.qualifier, requested)
            now = dt.datetime.fromtimestamp(self._clock.time(), dt.UTC)
            config = {"requested": requested, "modified_at": f"{now:%Y-%m-%dT%H:%M:%S}+0000"}
            await self._made.save(replace(made, provisioned={**made.provisioned, name.qualifier: config}))
        return json_answer(
            {
                "RequestedProvisionedConcurrentExecutions": requested,
                "AllocatedProvisionedConcurrentExecutions": 0,
                "AvailableProvisionedConcurrentExecutions": 0,
                "Status": "IN_PROGRESS",
                "LastModified": config["modified_at"],
            },
            status=202,
        )

    def _check_there(self, made: MadeFunction, name: FunctionName) -> None:
        if not made.has(name.qualifier):
            arn = f"{self._made.home.arn(made.name)}:{name.qualifier}"
            raise not_found(
                f"Function not found: {arn}" if name.qualifier.isdecimal() else f"Cannot find alias arn: {arn}"
            )

    def _check_limits(self, made: MadeFunction, qualifier: str, requested: int) -> None:
        others = sum(count for key, count in made.warmths().items() if key != qualifier)
        functions = self._neighbours(made.name)
        reserved = next((each.reserved_concurrency for each in functions if each.name == made.name), None)
        if reserved is not None:
            if others + requested > reserved:
                raise invalid(
                    "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for "
                    "function"
                )
            return
        left = self._account_concurrency() - set_aside(functions, but=made.name) - others
        if requested > left:
            raise invalid(
                "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency "
                f"[{max(0, left)}]."
            )
        if left - requested < UNRESERVED_MIN:
            raise invalid(
                "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below "
                f"its minimum value of [{UNRESERVED_MIN}]."
            )

    async def get_provisioned(self, request: Request, caller: Caller) -> Answer:
        """API_GetProvisionedConcurrencyConfig."""
        made, name = self._found(request, caller)
        config = made.provisioned.get(name.qualifier)
        if config is None:
            raise Refused(
                "ProvisionedConcurrencyConfigNotFoundException",
                "No Provisioned Concurrency Config found for this function",
                status=404,
            )
        return json_answer(self._shown(made, name.qualifier))

    def _found(self, request: Request, caller: Caller) -> tuple[MadeFunction, FunctionName]:
        name = _named(request, caller)
        if name.qualifier == LATEST:
            raise invalid("The function resource provided must be an alias or a published version.")
        made = self._made.extensible(name.name, qualifier=name.qualifier)
        self._check_there(made, name)
        return made, name

    async def list_provisioned(self, request: Request, caller: Caller) -> Answer:
        """API_ListProvisionedConcurrencyConfigs: the path of Get, with `List=ALL`."""
        query = dict(request.query())
        if query["List"] != "ALL":
            raise violated(query["List"], "list", "satisfy enum value set: [ALL]")
        name = read_name(request.params["fn"], caller)
        made = self._made.extensible(name.name)
        arn = self._made.home.arn(made.name)
        return page(
            query,
            "ProvisionedConcurrencyConfigs",
            made.provisioned,
            key=lambda qualifier: f"{arn}:{qualifier}",
            show=lambda qualifier: {"FunctionArn": f"{arn}:{qualifier}"} | self._shown(made, qualifier),
            most=_PAGE_MOST,
        )

    def _shown(self, made: MadeFunction, qualifier: str) -> dict[str, Any]:
        config = made.provisioned[qualifier]
        function = next((each for each in self._functions() if each.name == made.name), None)
        warm = {} if function is None else function.warm(qualifier)
        allocated = ready = 0
        trouble = ""
        for number, count in warm.items():
            assert function is not None
            state = self._warmth(function.versions[number])
            allocated += min(count, state.allocated)
            ready += min(count, state.ready)
            trouble = trouble or (state.trouble if state.ready < count else "")
        shown: dict[str, Any] = {
            "RequestedProvisionedConcurrentExecutions": config["requested"],
            "AllocatedProvisionedConcurrentExecutions": allocated,
            "AvailableProvisionedConcurrentExecutions": ready,
            "Status": "READY" if ready >= sum(warm.values()) else "FAILED" if trouble else "IN_PROGRESS",
            "LastModified": config["modified_at"],
        }
        if shown["Status"] == "FAILED":
            shown["StatusReason"] = trouble
        return shown

    async def delete_provisioned(self, request: Request, caller: Caller) -> Answer:
        """API_DeleteProvisionedConcurrencyConfig; one that is not there is fine."""
        async with self._made.changing():
            made, name = self._found(request, caller)
            if name.qualifier in made.provisioned:
                kept = {key: config for key, config in made.provisioned.items() if key != name.qualifier}
                await self._made.save(replace(made, provisioned=kept))
        return Answer(204)


def _named(request: Request, caller: Caller) -> FunctionName:
    name = read_name(request.params["fn"], caller, qualifier=dict(request.query()).get("Qualifier"))
    if not name.qualifier:
        raise violated(None, "qualifier", "not be null")
    return name

"""The operations of Lambda's API that only look at functions, declared or made, and at their limits."""

import contextlib
from typing import Any, NamedTuple

from bridge.api.awslambda import views
from bridge.api.awslambda.concurrency import set_aside
from bridge.api.awslambda.errors import not_found, violated
from bridge.api.awslambda.links import ContentLinks
from bridge.api.awslambda.names import FunctionName, read_name
from bridge.api.awslambda.paging import page
from bridge.api.http import Answer, Request, json_answer
from bridge.api.services import Services
from bridge.core.errors import FunctionNotFound
from bridge.core.function import LATEST, Function, FunctionVersion, function_arn
from bridge.registry.access import Caller
from bridge.registry.attached import Place
from bridge.registry.made import MadeFunction, MadeVersion
from bridge.registry.packages import UNZIPPED_MAX_BYTES
from bridge.registry.statements import policy_document


class _Edition(NamedTuple):
    """One version of a function, to be shown."""

    function: Function
    made: MadeFunction | None
    """What is kept of the function; None: the file alone has it."""
    kept: MadeVersion | None
    """The version there."""

    @property
    def number(self) -> str:
        """Version."""
        return LATEST if self.kept is None else self.kept.version


class ReadOperations:
    """Handlers of what only reads; each gets the request and who calls.

    Args:
        services: what is looked at.
        links: to the code of functions.
    """

    def __init__(self, services: Services, links: ContentLinks) -> None:
        self._services = services
        self._links = links

    # --- functions ----------------------------------------------------------------------------------------------

    async def list_functions(self, request: Request, caller: Caller) -> Answer:
        """API_ListFunctions."""
        query = dict(request.query())
        wanted = query.get("FunctionVersion")
        if wanted not in (None, "ALL"):
            raise violated(wanted, "functionVersion", "satisfy enum value set: [ALL]")
        functions, is_all = caller.own(self._services.functions()), wanted == "ALL"
        return page(
            query,
            "Functions",
            [edition for each in functions for edition in self._editions(each, all_versions=is_all)],
            key=lambda each: self._edition_arn(each, caller, qualified=is_all),
            show=lambda each: self._edition_view(each, caller, qualified=is_all),
        )

    def _made(self, name: str) -> MadeFunction | None:
        return None if self._services.made is None else self._services.made.kept(name)

    def _editions(self, function: Function, *, all_versions: bool) -> list[_Edition]:
        made = self._made(function.name)
        if made is None:
            return [_Edition(function, None, None)]
        return [_Edition(function, made, each) for each in (made.all_versions() if all_versions else [made.latest])]

    def _edition_arn(self, edition: _Edition, caller: Caller, *, qualified: bool) -> str:
        arn = function_arn(edition.function.name, region=caller.region, account=caller.account)
        return f"{arn}:{edition.number}" if qualified else arn

    def _edition_view(self, edition: _Edition, caller: Caller, *, qualified: bool) -> dict[str, Any]:
        function, made, kept = edition
        if made is None or kept is None or self._services.made is None:
            return views.configuration(function, function.latest, caller, qualified=qualified)
        return views.made_configuration(self._services.made, made, kept, qualified=qualified)

    def _shown(self, request: Request, caller: Caller) -> tuple[dict[str, Any], Function, MadeVersion | None]:
        """Return the configuration that a request names, whose it is, and what is kept of it."""
        function, version, name = self._find(request, caller)
        made = self._made(function.name)
        kept = None if made is None else made.find(name.qualifier)
        if made is None or kept is None or self._services.made is None:
            return views.configuration(function, version, caller, qualified=bool(name.qualifier)), function, None
        shown = views.made_configuration(self._services.made, made, kept, qualified=bool(name.qualifier))
        if name.qualifier in made.aliases:  # the ARN is the one that was asked for
            shown["FunctionArn"] = self._arn(function, caller, name)
        return shown, function, kept

    async def get_function(self, request: Request, caller: Caller) -> Answer:
        """API_GetFunction; the code of a declared function has no Location, it is a folder of the file's machine."""
        shown, function, kept = self._shown(request, caller)
        made = self._made(function.name)
        found: dict[str, Any] = {"Configuration": shown, "Code": {"RepositoryType": "S3"}}
        if kept is not None and kept.package:
            found["Code"]["Location"] = self._links.to(kept.package, request)
        if made is not None and made.tags:
            found["Tags"] = dict(made.tags)
        if function.reserved_concurrency is not None:
            found["Concurrency"] = {"ReservedConcurrentExecutions": function.reserved_concurrency}
        return json_answer(found)

    async def get_configuration(self, request: Request, caller: Caller) -> Answer:
        """API_GetFunctionConfiguration."""
        shown, _, _ = self._shown(request, caller)
        return json_answer(shown)

    async def list_versions(self, request: Request, caller: Caller) -> Answer:
        """API_ListVersionsByFunction: `$LATEST`, then what was published, in order."""
        function, _, _ = self._find(request, caller)
        return page(
            dict(request.query()),
            "Versions",
            self._editions(function, all_versions=True),
            key=lambda each: each.number,
            show=lambda each: self._edition_view(each, caller, qualified=True),
            order=_version_order,
        )

    async def list_aliases(self, request: Request, caller: Caller) -> Answer:
        """API_ListAliases; those of one version, where one is named."""
        function, _, name = self._find(request, caller)
        query, made = dict(request.query()), self._made(function.name)
        wanted = query.get("FunctionVersion")
        aliases = [] if made is None else made.aliases.values()
        arn = function_arn(name.name, region=caller.region, account=caller.account)
        return page(
            query,
            "Aliases",
            [each for each in aliases if wanted in (None, each.version)],
            key=lambda each: each.name,
            show=lambda each: views.alias_view(each, f"{arn}:{each.name}"),
        )

    async def get_policy(self, request: Request, caller: Caller) -> Answer:
        """API_GetPolicy: what the file's routes and sources imply, then what was added."""
        place, policies = self.policy_place(request, caller), self._services.attached.policies
        statements = policies.statements(place)
        if not statements:
            raise not_found("The resource you requested does not exist.")
        return json_answer({"Policy": policy_document(statements), "RevisionId": policies.revision(place)})

    def policy_place(self, request: Request, caller: Caller) -> Place:
        """Return whose policy a request is about: a function's, a version's, an alias's. Raises Refused: 404."""
        function, _, name = self._find(request, caller)
        arn = function_arn(function.name, region=caller.region, account=caller.account)
        return arn, "" if name.qualifier == LATEST else name.qualifier

    async def get_concurrency(self, request: Request, caller: Caller) -> Answer:
        """API_GetFunctionConcurrency."""
        function, _, _ = self._find(request, caller)
        reserved = function.reserved_concurrency
        return json_answer({} if reserved is None else {"ReservedConcurrentExecutions": reserved})

    async def get_event_invoke(self, request: Request, caller: Caller) -> Answer:
        """API_GetFunctionEventInvokeConfig."""
        function, _, name = self._find(request, caller)
        arn = self._arn(function, caller, name)
        configs = self._event_invokes(function, arn.rpartition(":")[0])
        if (config := configs.get(name.qualifier or LATEST)) is None:
            raise not_found(f"The function {arn} doesn't have an EventInvokeConfig")
        return json_answer(config)

    async def list_event_invoke(self, request: Request, caller: Caller) -> Answer:
        """API_ListFunctionEventInvokeConfigs."""
        function, _, _ = self._find(request, caller)
        arn = function_arn(function.name, region=caller.region, account=caller.account)
        configs = self._event_invokes(function, arn).values()
        query = dict(request.query())
        return page(query, "FunctionEventInvokeConfigs", configs, key=lambda each: str(each["FunctionArn"]), show=dict)

    def _event_invokes(self, function: Function, arn: str) -> dict[str, dict[str, Any]]:
        """Return the configurations by qualifier; of a function of the file, `$LATEST` always has one."""
        made = self._made(function.name)
        kept = {} if made is None else dict(made.event_invokes)
        shown = {key: views.made_event_invoke(each, f"{arn}:{key}") for key, each in kept.items()}
        if not function.is_made and (function.writes_event_invoke or LATEST not in kept):
            shown[LATEST] = views.event_invoke_config(function.event_invoke, f"{arn}:{LATEST}")
        return shown

    async def list_tags(self, request: Request, caller: Caller) -> Answer:
        """API_ListTags."""
        function, _, _ = self._find(request, caller, member="arn")
        made = self._made(function.name)
        return json_answer({"Tags": {} if made is None else dict(made.tags)})

    async def account_settings(self, _request: Request, caller: Caller) -> Answer:
        """API_GetAccountSettings."""
        functions = caller.own(self._services.functions())
        total = self._services.account_concurrency()
        made = self._services.made
        size = 0 if made is None else made.total_size(caller.space)
        if made is not None:
            size += made.layers.total_size(caller.account, caller.region)
        return json_answer(
            {
                "AccountLimit": {
                    "TotalCodeSize": 80_530_636_800,
                    "CodeSizeUnzipped": UNZIPPED_MAX_BYTES,
                    "CodeSizeZipped": 52_428_800,
                    "ConcurrentExecutions": total,
                    "UnreservedConcurrentExecutions": total - set_aside(functions),
                },
                "AccountUsage": {"TotalCodeSize": size, "FunctionCount": len(functions)},
            }
        )

    # --- common -------------------------------------------------------------------------------------------------

    def _find(
        self, request: Request, caller: Caller, *, member: str = "fn"
    ) -> tuple[Function, FunctionVersion, FunctionName]:
        name = read_name(request.params[member], caller, qualifier=dict(request.query()).get("Qualifier"))
        function = self.find(name, caller)
        try:
            return function, function.version(name.qualifier), name
        except FunctionNotFound as error:
            raise not_found(str(error)) from error

    def find(self, name: FunctionName, caller: Caller) -> Function:
        """Return a function that a caller named.

        Raises:
            Refused: 404, with the ARN that was looked for (semantics 1.6).
        """
        with contextlib.suppress(FunctionNotFound):
            return self._services.function(name.name)
        arn = function_arn(name.name, region=caller.region, account=caller.account)
        raise not_found(f"Function not found: {arn}:{name.qualifier or LATEST}")

    def _arn(self, function: Function, caller: Caller, name: FunctionName) -> str:
        arn = function_arn(function.name, region=caller.region, account=caller.account)
        return f"{arn}:{name.qualifier or LATEST}"


def _version_order(version: str) -> tuple[int, str]:
    """`$LATEST` first, then by number."""
    return (int(version), "") if version.isdecimal() else (0, version)

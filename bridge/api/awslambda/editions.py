"""Versions and aliases that Lambda's API makes, of functions of its own and of the file (semantics 5.3, 5.4)."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from bridge.api.awslambda import views
from bridge.api.awslambda.concurrency import check_provisionable
from bridge.api.awslambda.control import MadeFunctions
from bridge.api.awslambda.errors import Refused, invalid, not_found, violated
from bridge.api.awslambda.names import read_name
from bridge.api.awslambda.shapes import DESCRIPTION_MAX_CHARS, Body
from bridge.api.awslambda.writing import check_revision, latest_only, publish
from bridge.api.http import Answer, Request, json_answer
from bridge.core.function import LATEST
from bridge.registry.access import Caller
from bridge.registry.made import MadeAlias, MadeFunction, last_published, new_id

ALIAS_PATTERN: Final = "(?!^[0-9]+$)([a-zA-Z0-9-_]+)"
_ALIAS: Final = re.compile(r"(?![0-9]+\Z)[a-zA-Z0-9_-]{1,128}\Z")
VERSION_PATTERN: Final = r"(\$LATEST|[0-9]+)"


class EditionOperations:
    """Handlers of PublishVersion and of what makes, changes, shows and deletes aliases."""

    def __init__(self, made: MadeFunctions) -> None:
        self._made = made

    async def publish_version(self, request: Request, caller: Caller) -> Answer:
        """API_PublishVersion: nothing changed since the last time is that version again."""
        body = Body.of(await request.body())
        name = latest_only(request, caller)
        sha, description = body.get("CodeSha256", str), body.text("Description", most=DESCRIPTION_MAX_CHARS)
        body.finish()
        async with self._made.changing():
            made = self._made.extensible(name.name, of_code=True)
            self._made.check_settled(name.name)
            check_revision(body.get("RevisionId", str), made.latest.revision_id)
            if made.is_declared:
                made = await self._made.snapshot(made)
            if sha and sha != made.latest.code_sha256:
                raise invalid(
                    f"CodeSHA256 ({sha[:100]}) is different from current CodeSHA256 in $LATEST "
                    f"({made.latest.code_sha256}). Please try again with the CodeSHA256 in $LATEST."
                )
            after = await publish(self._made, made, description=description)
            if after is not made:
                await self._made.save(after)
        version = last_published(after)
        assert version is not None
        return json_answer(views.made_configuration(self._made, after, version, qualified=True), status=201)

    # --- aliases ------------------------------------------------------------------------------------------------

    async def create_alias(self, request: Request, caller: Caller) -> Answer:
        """API_CreateAlias."""
        body = Body.of(await request.body())
        function = latest_only(request, caller)
        name = body.text("Name", pattern=ALIAS_PATTERN, most=128, required=True)
        version = body.text("FunctionVersion", pattern=VERSION_PATTERN, most=1024, required=True)
        description = body.text("Description", most=DESCRIPTION_MAX_CHARS) or ""
        body.finish()
        assert name is not None
        assert version is not None
        async with self._made.changing():
            made = self._made.extensible(function.name, of_code=True)
            if name in made.aliases:
                raise Refused("ResourceConflictException", f"Alias already exists: {self._arn(made, name)}", status=409)
            alias = MadeAlias(name=name, version=version, description=description, weights=_weights(body) or {})
            self._check(made, alias)
            await self._made.save(replace(made, aliases={**made.aliases, name: alias}))
        return json_answer(views.alias_view(alias, self._arn(made, name)), status=201)

    async def update_alias(self, request: Request, caller: Caller) -> Answer:
        """API_UpdateAlias: what is left out stays; an empty AdditionalVersionWeights removes them."""
        body = Body.of(await request.body())
        name = _alias_name(request)
        function = latest_only(request, caller)
        version = body.text("FunctionVersion", pattern=VERSION_PATTERN, most=1024)
        description = body.text("Description", most=DESCRIPTION_MAX_CHARS)
        body.finish()
        async with self._made.changing():
            made = self._made.extensible(function.name, of_code=True)
            before = made.aliases.get(name)
            if before is None:
                raise not_found(f"Alias not found: {self._arn(made, name)}")
            check_revision(body.get("RevisionId", str), before.revision_id)
            weights = _weights(body)
            alias = replace(
                before,
                version=before.version if version is None else version,
                description=before.description if description is None else description,
                weights=before.weights if weights is None else weights,
                revision_id=new_id(),
            )
            self._check(made, alias)
            await self._made.save(replace(made, aliases={**made.aliases, name: alias}))
        return json_answer(views.alias_view(alias, self._arn(made, name)))

    async def get_alias(self, request: Request, caller: Caller) -> Answer:
        """API_GetAlias."""
        name, function = _alias_name(request), read_name(request.params["fn"], caller)
        made = self._made.kept(function.name)
        alias = None if made is None else made.aliases.get(name)
        if made is None or alias is None:
            arn = self._made.home.arn(function.name)
            raise not_found(f"Cannot find alias arn: {arn}:{name}")
        return json_answer(views.alias_view(alias, self._arn(made, name)))

    async def delete_alias(self, request: Request, caller: Caller) -> Answer:
        """API_DeleteAlias; one that is not there is fine."""
        name = _alias_name(request)
        function = latest_only(request, caller)
        async with self._made.changing():
            made = self._made.extensible(function.name, of_code=True)
            if name in made.aliases:
                aliases = {key: alias for key, alias in made.aliases.items() if key != name}
                await self._made.save(replace(made.without(name), aliases=aliases))
        return Answer(204)

    def _arn(self, made: MadeFunction, alias: str) -> str:
        return f"{self._made.home.arn(made.name)}:{alias}"

    def _check(self, made: MadeFunction, alias: MadeAlias) -> None:
        """Refuse what points nowhere, or to two versions that do not go together."""
        if len(alias.weights) > 1:
            raise invalid("Number of items in AdditionalVersionWeights cannot be greater than 1")
        for version in alias.weights:
            if version == alias.version:
                raise invalid(
                    f"Invalid function version {version}. Function version {version} is already included in routing "
                    "configuration."
                )
            if LATEST in (version, alias.version):
                raise invalid("$LATEST is not supported for an alias pointing to more than 1 version")
        for version in (alias.version, *alias.weights):
            if version != LATEST and version not in made.versions:
                raise not_found(f"Function not found: {self._made.home.arn(made.name)}:{version}")
        if alias.name in made.provisioned:
            check_provisionable(made, alias.name, alias)
        first = made.versions.get(alias.version)
        for version in alias.weights:
            second = made.versions[version]
            assert first is not None
            for member, what in (("Role", "execution role"), ("DeadLetterConfig", "dead-letter queue")):
                if first.settings.get(member) != second.settings.get(member):
                    raise invalid(f"The versions of a weighted alias must have the same {what}")


def _alias_name(request: Request) -> str:
    name = request.params["alias"]
    if not _ALIAS.match(name):
        raise violated(name, "name", f"satisfy regular expression pattern: {ALIAS_PATTERN}")
    return name


def _weights(body: Body) -> Mapping[str, float] | None:
    """Return AdditionalVersionWeights; None where they are left out."""
    routing = body.inner("RoutingConfig")
    found: Mapping[str, Any] | None = None if routing is None else routing.get("AdditionalVersionWeights", dict)
    if found is None:
        return None if routing is None else {}
    weights: dict[str, float] = {}
    for version, weight in found.items():
        if not re.fullmatch(VERSION_PATTERN, version):
            raise invalid(f"Invalid function version {version[:64]}: an alias points to versions, never to an alias")
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise Refused("SerializationException", "AdditionalVersionWeights holds numbers")
        if not 0.0 <= weight <= 1.0:
            raise violated(weight, "routingConfig.additionalVersionWeights", "have a value between 0.0 and 1.0")
        weights[version] = float(weight)
    return weights

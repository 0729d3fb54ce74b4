"""CreateFunction, UpdateFunctionCode, UpdateFunctionConfiguration and DeleteFunction of Lambda's API."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

from bridge.api.awslambda import shapes, views
from bridge.api.awslambda.control import IN_PROGRESS, PENDING, MadeFunctions, stamp
from bridge.api.awslambda.errors import Refused, invalid, stale, violated
from bridge.api.awslambda.made_layers import shown_layers
from bridge.api.awslambda.names import FunctionName, denied, read_name
from bridge.api.awslambda.permits import CREATE_FUNCTION
from bridge.api.awslambda.roles import RoleFinder, check_configuration
from bridge.api.awslambda.safeguards import check_signing_config, signing_config
from bridge.api.awslambda.shapes import Body
from bridge.api.awslambda.uploads import Upload, Uploads
from bridge.api.http import Answer, Request, json_answer
from bridge.core import limits
from bridge.core.function import LATEST, plain_name
from bridge.core.logging_config import GROUP_PREFIX, TEXT, merged
from bridge.core.ports import Clock
from bridge.core.spaces import REGION_PATTERN
from bridge.registry.access import Caller
from bridge.registry.layers import LayerVersion
from bridge.registry.made import MadeFunction, MadeVersion, last_published, new_id, published
from bridge.registry.safeguards import Safeguards
from bridge.registry.snapshots import ARCHITECTURE

_DEFAULTS: Final[Mapping[str, Any]] = {
    "Description": "",
    "Timeout": limits.TIMEOUT_DEFAULT_S,
    "MemorySize": limits.MEMORY_DEFAULT_MB,
    "EphemeralStorage": {"Size": limits.EPHEMERAL_STORAGE_DEFAULT_MB},
    "TracingConfig": {"Mode": "PassThrough"},
    "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
}
_OPTIONAL: Final = ("DeadLetterConfig", "VpcConfig", "KMSKeyArn", "Layers")
"""Settings that an empty value takes away."""


class WriteOperations:
    """Handlers of what makes, changes and deletes functions.

    Args:
        made: the functions.
        uploads: receives their code.
        safeguards: the code-signing configurations that they may have.
        clock: the daemon's.
        roles: the execution roles there are; None: nothing is asked of any.
        has_memory_steps: whether memory is counted as Lambda once did, in steps of 64 MB.
    """

    def __init__(
        self,
        made: MadeFunctions,
        uploads: Uploads,
        safeguards: Safeguards,
        clock: Clock,
        *,
        roles: RoleFinder | None = None,
        has_memory_steps: Callable[[], bool] = lambda: False,
    ) -> None:
        self._made = made
        self._uploads = uploads
        self._safeguards = safeguards
        self._clock = clock
        self._roles = roles
        self._has_memory_steps = has_memory_steps

    async def create(self, _request: Request, caller: Caller, upload: Upload) -> Answer:
        """API_CreateFunction."""
        async with self._uploads.decode(upload, region=caller.region, member="Code") as (members, file):
            body = Body(members)
            name = read_name(body.text("FunctionName") or _missing("functionName"), caller)
            if name.qualifier not in ("", LATEST):
                raise invalid("A function is created without a qualifier")
            check_region(caller.region)
            arn = self._made.home.arn(name.name)
            if caller.role is not None and not caller.may(CREATE_FUNCTION, arn):
                raise denied(caller, CREATE_FUNCTION, arn)
            signing = signing_config(body)
            settings = shapes.configuration(body, creates=True, has_memory_steps=self._has_memory_steps())
            if "Runtime" not in settings or "Handler" not in settings:
                raise invalid(
                    "Runtime and Handler are mandatory parameters for functions created with deployment packages."
                )
            settings = _without_empty({**_DEFAULTS, **settings})
            settings["Architectures"] = shapes.architectures(body) or [ARCHITECTURE]
            logging = {"LogFormat": TEXT, "LogGroup": GROUP_PREFIX + plain_name(name.name)}
            settings["LoggingConfig"] = merged(logging, settings.get("LoggingConfig", {}))
            variables, tags = shapes.environment(body) or {}, shapes.tags(body)
            arns = shapes.layers(body) or []
            await check_configuration(self._roles, settings, caller)
            async with self._made.changing():
                self._made.check_new(name.name)
                if signing is not None:
                    check_signing_config(self._safeguards, signing, caller)
                layers = self._made.layers.resolve(arns, caller)
                created = await self._first_version(name.name, settings, variables, file)
                created = await self._with_layers(created, layers)
                made = MadeFunction(
                    name=name.name, latest=created, tags=tags, last_version=self._made.last_number(name.name)
                )
                if body.get("Publish", bool):
                    made = await publish(self._made, made, description=None)
                await self._made.save(made, state=PENDING)
                if signing is not None:
                    await self._safeguards.set_config(self._made.home.arn(name.name), signing)
            version = last_published(made) or made.latest
            shown = views.made_configuration(self._made, made, version, qualified=version.version != LATEST)
            return json_answer(shown, status=201)

    async def _first_version(
        self, name: str, settings: dict[str, Any], variables: Mapping[str, str], file: Path
    ) -> MadeVersion:
        package = await self._made.add_package(file)
        return MadeVersion(
            settings=settings,
            package=package.key,
            code_size=package.size,
            environment=await self._made.sealing.close(name, LATEST, variables, key=kms_key_arn(settings)),
            modified_at=stamp(self._clock),
        )

    async def _with_layers(self, version: MadeVersion, layers: Sequence[LayerVersion]) -> MadeVersion:
        settings = _without_empty({**version.settings, "Layers": shown_layers(layers)})
        packages = [layer.package for layer in layers]
        await self._made.check_unzipped(version.package, packages)
        return replace(version, settings=settings, layers=packages)

    async def update_code(self, request: Request, caller: Caller, upload: Upload) -> Answer:
        """API_UpdateFunctionCode."""
        async with self._uploads.decode(upload, region=caller.region) as (members, file):
            body = Body(members)
            name = latest_only(request, caller)
            architectures = shapes.architectures(body)
            body.finish()
            is_dry = body.get("DryRun", bool) or False
            async with self._made.changing():
                before = self._changeable(name, body)
                package = await self._made.add_package(file)
                await self._made.check_unzipped(package.key, before.latest.layers)
                settings = {**before.latest.settings, **({"Architectures": architectures} if architectures else {})}
                latest = replace(
                    before.latest,
                    settings=settings,
                    package=package.key,
                    code_size=package.size,
                    modified_at=stamp(self._clock),
                    revision_id=new_id(),
                )
                made = replace(before, latest=latest)
                if body.get("Publish", bool) and not is_dry:
                    made = await publish(self._made, made, description=None)
                if not is_dry:
                    await self._made.save(made, state=IN_PROGRESS, runs=False)
            version = made.latest
            if body.get("Publish", bool) and not is_dry:
                version = last_published(made) or version
            return json_answer(views.made_configuration(self._made, made, version, qualified=version.version != LATEST))

    async def update_configuration(self, request: Request, caller: Caller) -> Answer:
        """API_UpdateFunctionConfiguration: what is left out stays; the variables are replaced as a whole."""
        body = Body.of(await request.body())
        name = latest_only(request, caller)
        settings = shapes.configuration(body, creates=False, has_memory_steps=self._has_memory_steps())
        variables, arns = shapes.environment(body), shapes.layers(body)
        async with self._made.changing():
            before = self._changeable(name, body)
            layers = None if arns is None else self._made.layers.resolve(arns, caller)
            logging = merged(before.latest.settings["LoggingConfig"], settings.get("LoggingConfig", {}))
            now = {**_without_empty({**before.latest.settings, **settings}), "LoggingConfig": logging}
            await check_configuration(self._roles, now, caller, is_passed="Role" in settings)
            latest = replace(before.latest, settings=now, modified_at=stamp(self._clock), revision_id=new_id())
            latest = replace(latest, environment=await self._environment(before, now, variables))
            if layers is not None:
                latest = await self._with_layers(latest, layers)
            made = replace(before, latest=latest)
            await self._made.save(made, state=IN_PROGRESS, runs=False)
        return json_answer(views.made_configuration(self._made, made, made.latest, qualified=False))

    async def _environment(
        self, before: MadeFunction, settings: Mapping[str, Any], variables: Mapping[str, str] | None
    ) -> str:
        """Return the variables as they are to be kept: as they were, or sealed anew where they or their key changed."""
        key = kms_key_arn(settings)
        if variables is None:
            if key == kms_key_arn(before.latest.settings):
                return before.latest.environment
            variables = await asyncio.to_thread(self._made.variables, before.name, before.latest)
        return await self._made.sealing.close(before.name, LATEST, variables, key=key)

    def _changeable(self, name: FunctionName, body: Body) -> MadeFunction:
        made = self._made.writable(name.name)
        self._made.check_settled(name.name)
        check_revision(body.get("RevisionId", str), made.latest.revision_id)
        return made

    async def delete(self, request: Request, caller: Caller) -> Answer:
        """API_DeleteFunction: a function, or one of its versions."""
        name = read_name(request.params["fn"], caller, qualifier=dict(request.query()).get("Qualifier"))
        async with self._made.changing():
            if not name.qualifier:
                await self._made.delete(self._made.removable(name.name))
                return Answer(204)
            made = self._made.extensible(name.name, qualifier=name.qualifier)
            if name.qualifier == LATEST:
                raise invalid("$LATEST version cannot be deleted without deleting the function.")
            if name.qualifier in made.aliases:
                raise invalid(f"{name.qualifier} is an alias: DeleteAlias deletes it")
            self._check_unused(made, name.qualifier)
            versions = {number: each for number, each in made.versions.items() if number != name.qualifier}
            if len(versions) != len(made.versions):
                await self._made.save(replace(made.without(name.qualifier), versions=versions))
        return Answer(204)

    def _check_unused(self, made: MadeFunction, number: str) -> None:
        users = [alias.name for alias in made.aliases.values() if number in (alias.version, *alias.weights)]
        if users:
            raise Refused(
                "ResourceConflictException",
                f"Version {number} cannot be deleted: the following aliases reference it: [{', '.join(users)}]",
                status=409,
            )


async def publish(functions: MadeFunctions, made: MadeFunction, *, description: str | None) -> MadeFunction:
    """Return the function with `$LATEST` published, or as it is where nothing has changed since the last time."""
    variables = await asyncio.to_thread(functions.variables, made.name, made.latest)
    last = last_published(made)
    is_same = last is not None and last.compared() == made.latest.compared()
    if is_same and last is not None and await asyncio.to_thread(functions.variables, made.name, last) == variables:
        return made
    number = str(made.last_version + 1)
    key = kms_key_arn(made.latest.settings)
    environment = await functions.sealing.close(made.name, number, variables, key=key) if variables else ""
    return published(made, description=description, environment=environment)


def check_region(region: str) -> None:
    """Refuse what no ARN has as its region: such a function could not be named."""
    if not REGION_PATTERN.match(region):
        raise invalid(f"Functions are made in a region such as eu-central-1, not in '{region[:40]}'")


def check_revision(given: str | None, current: str) -> None:
    """Refuse a change that was asked for of another revision."""
    if given is not None and given != current:
        raise stale("GetFunction/GetAlias")


def latest_only(request: Request, caller: Caller) -> FunctionName:
    """Return the function of a path that must name `$LATEST`, or no qualifier."""
    name = read_name(request.params["fn"], caller, qualifier=dict(request.query()).get("Qualifier"))
    if name.qualifier not in ("", LATEST):
        raise invalid("This operation is permitted on $LATEST only: versions are immutable, aliases have none of it.")
    return name


def kms_key_arn(settings: Mapping[str, Any]) -> str:
    """Return KMSKeyArn; empty: the key file's key."""
    return str(settings.get("KMSKeyArn", ""))


def _without_empty(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value or name not in _OPTIONAL}


def _missing(member: str) -> NoReturn:
    raise violated(None, member, "not be null")

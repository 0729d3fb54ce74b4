"""The operations on layers of Lambda's API: publish, look, delete, and who else may use a version (semantics 5.5)."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from bridge.api.awslambda.control import MadeFunctions, stamp
from bridge.api.awslambda.errors import Refused, invalid, not_found, stale, violated
from bridge.api.awslambda.links import ContentLinks
from bridge.api.awslambda.made_layers import ARN_PATTERN, not_shared
from bridge.api.awslambda.names import denied
from bridge.api.awslambda.paging import page
from bridge.api.awslambda.shapes import ARCHITECTURES, DESCRIPTION_MAX_CHARS, Body
from bridge.api.awslambda.uploads import Upload, Uploads
from bridge.api.http import Answer, Request, json_answer
from bridge.core import limits
from bridge.core.ports import Clock
from bridge.registry.access import Caller
from bridge.registry.interpreters import RUNTIMES
from bridge.registry.layers import (
    GET_ACTION,
    LayerName,
    LayerStatement,
    LayerVersion,
    read_layer,
    read_version_arn,
)
from bridge.registry.made import new_id

NAME_PATTERN: Final = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:layer:"
    r"[a-zA-Z0-9-_]+)|[a-zA-Z0-9-_]+"
)
STATEMENT_PATTERN: Final = "([a-zA-Z0-9-_]+)"
PRINCIPAL_PATTERN: Final = r"\d{12}|\*|arn:(aws[a-zA-Z-]*):iam::\d{12}:root"
ORGANIZATION_PATTERN: Final = "o-[a-z0-9]{10,32}"
LICENSE_MAX_CHARS: Final = 512
RUNTIMES_MAX: Final = 15
LIST_MAX: Final = 50
"""Largest MaxItems of layers (API_ListLayers)."""
_MISSING: Final = "The resource you requested does not exist."
_VERSION: Final = re.compile(r"-?[0-9]{1,18}\Z", re.ASCII)


class LayerOperations:
    """Handlers of layers; each gets the request and who calls.

    Args:
        made: holds the layers and their packages.
        uploads: receives their zips.
        links: to their content.
        clock: the daemon's.
    """

    def __init__(self, made: MadeFunctions, uploads: Uploads, links: ContentLinks, clock: Clock) -> None:
        self._made = made
        self._layers = made.layers
        self._uploads = uploads
        self._links = links
        self._clock = clock

    # --- versions -----------------------------------------------------------------------------------------------

    async def publish(self, request: Request, caller: Caller, upload: Upload) -> Answer:
        """API_PublishLayerVersion."""
        layer = _own(request, caller, "lambda:PublishLayerVersion")
        async with self._uploads.decode(upload, region=caller.region, member="Content") as (members, file):
            body = Body(members)
            description = body.text("Description", most=DESCRIPTION_MAX_CHARS) or ""
            license_info = body.text("LicenseInfo", most=LICENSE_MAX_CHARS)
            runtimes = _named(body, "CompatibleRuntimes", RUNTIMES, most=RUNTIMES_MAX)
            architectures = _named(body, "CompatibleArchitectures", ARCHITECTURES, most=len(ARCHITECTURES))
            body.finish()
            async with self._made.changing():
                package = await self._made.add_package(file)
                version = LayerVersion(
                    layer=layer,
                    version=self._layers.next_number(layer),
                    package=package.key,
                    code_size=package.size,
                    created_at=stamp(self._clock),
                    description=description,
                    license_info=license_info,
                    runtimes=runtimes,
                    architectures=architectures,
                )
                await self._layers.put(version)
        return json_answer(self._whole(version, request), status=201)

    async def get(self, request: Request, caller: Caller) -> Answer:
        """API_GetLayerVersion."""
        layer, number = _layer(request, caller), _number(request)
        return json_answer(self._whole(self._visible(layer, number, caller), request))

    async def get_by_arn(self, request: Request, caller: Caller) -> Answer:
        """API_GetLayerVersionByArn."""
        arn = dict(request.query()).get("Arn", "")
        found = read_version_arn(arn)
        if found is None:
            raise violated(arn, "arn", f"satisfy regular expression pattern: {ARN_PATTERN}")
        return json_answer(self._whole(self._visible(*found, caller), request))

    async def list_versions(self, request: Request, caller: Caller) -> Answer:
        """API_ListLayerVersions: the latest first."""
        query, layer = dict(request.query()), _layer(request, caller)
        runtime, architecture = _filters(query)
        versions = [
            version
            for version in self._layers.versions(layer)
            if version.suits(runtime=runtime, architecture=architecture) and version.is_open_to(caller)
        ]
        return page(
            query,
            "LayerVersions",
            versions,
            key=lambda version: str(version.version),
            show=_view,
            limit=LIST_MAX,
            order=lambda number: -int(number),
        )

    async def list_layers(self, request: Request, caller: Caller) -> Answer:
        """API_ListLayers: each with its latest version that suits."""
        query = dict(request.query())
        runtime, architecture = _filters(query)
        latest = []
        for layer in self._layers.names(caller.account, caller.region):
            suiting = [
                each for each in self._layers.versions(layer) if each.suits(runtime=runtime, architecture=architecture)
            ]
            latest += suiting[-1:]
        return page(query, "Layers", latest, key=lambda version: version.layer.name, show=_layer_view, limit=LIST_MAX)

    async def delete(self, request: Request, caller: Caller) -> Answer:
        """API_DeleteLayerVersion; one that is not there is fine."""
        layer, number = _own(request, caller, "lambda:DeleteLayerVersion"), _number(request)
        async with self._made.changing():
            if (version := self._layers.find(layer, number)) is not None:
                await self._layers.delete(version)
        return Answer(204)

    def _visible(self, layer: LayerName, number: int, caller: Caller) -> LayerVersion:
        version = self._layers.find(layer, number)
        if layer.account != caller.account and (version is None or not version.is_open_to(caller)):
            raise not_shared(caller, layer.version_arn(number))
        if version is None or layer.region != caller.region:
            raise not_found(_MISSING)
        return version

    def _whole(self, version: LayerVersion, request: Request) -> dict[str, Any]:
        """Return GetLayerVersionResponse."""
        content = {
            "Location": self._links.to(version.package, request),
            "CodeSha256": version.code_sha256,
            "CodeSize": version.code_size,
        }
        return {"Content": content, "LayerArn": version.layer.arn} | _view(version)

    # --- policies -----------------------------------------------------------------------------------------------

    async def add_permission(self, request: Request, caller: Caller) -> Answer:
        """API_AddLayerVersionPermission."""
        layer, number = _own(request, caller, "lambda:AddLayerVersionPermission"), _number(request)
        body = Body.of(await request.body())
        sid = body.text("StatementId", pattern=STATEMENT_PATTERN, most=100, required=True)
        body.text("Action", pattern=GET_ACTION, most=22, required=True)
        principal = body.text("Principal", pattern=PRINCIPAL_PATTERN, required=True)
        organization = body.text("OrganizationId", pattern=ORGANIZATION_PATTERN, most=34) or ""
        body.finish()
        assert sid is not None
        assert principal is not None
        async with self._made.changing():
            before = self._existing(layer, number)
            if sid in before.statements:
                text = (
                    f"The statement id ({sid}) provided already exists. Please provide a new statement id, or remove "
                    "the existing statement."
                )
                raise Refused("ResourceConflictException", text, status=409)
            _check_revision(request, before)
            statement = LayerStatement(principal=principal, organization=organization)
            after = replace(before, statements={**before.statements, sid: statement}, policy_revision=new_id())
            if len(after.policy().encode()) > limits.POLICY_MAX_BYTES:
                text = f"The final policy size is bigger than the limit ({limits.POLICY_MAX_BYTES})."
                raise Refused("PolicyLengthExceededException", text)
            await self._layers.put(after)
        text = orjson.dumps(statement.document(sid, after.arn)).decode()
        return json_answer({"Statement": text, "RevisionId": after.policy_revision}, status=201)

    async def get_policy(self, request: Request, caller: Caller) -> Answer:
        """API_GetLayerVersionPolicy."""
        version = self._existing(_own(request, caller, "lambda:GetLayerVersionPolicy"), _number(request))
        if not version.statements:
            raise not_found("No policy is associated with the given resource.")
        return json_answer({"Policy": version.policy(), "RevisionId": version.policy_revision})

    async def remove_permission(self, request: Request, caller: Caller) -> Answer:
        """API_RemoveLayerVersionPermission; with the last statement the policy is gone."""
        layer, number = _own(request, caller, "lambda:RemoveLayerVersionPermission"), _number(request)
        sid = request.params["sid"]
        async with self._made.changing():
            before = self._existing(layer, number)
            if not before.statements:
                raise not_found("No policy is associated with the given resource.")
            _check_revision(request, before)
            if sid not in before.statements:
                raise not_found(f"Statement {sid[:100]} is not found in resource policy.")
            statements = {name: each for name, each in before.statements.items() if name != sid}
            await self._layers.put(replace(before, statements=statements, policy_revision=new_id()))
        return Answer(204)

    def _existing(self, layer: LayerName, number: int) -> LayerVersion:
        version = self._layers.find(layer, number)
        if version is None:
            raise not_found(f"Layer version {layer.version_arn(number)} does not exist.")
        return version


# --- reading requests ------------------------------------------------------------------------------------------------
def _layer(request: Request, caller: Caller) -> LayerName:
    text = request.params["layer"]
    layer = read_layer(text, account=caller.account, region=caller.region)
    if layer is None:
        raise violated(text, "layerName", f"satisfy regular expression pattern: {NAME_PATTERN}")
    return layer


def _own(request: Request, caller: Caller, action: str) -> LayerName:
    """Return the layer of a path, of the caller's own account: a policy lets others look and use, nothing more."""
    layer = _layer(request, caller)
    if layer.account != caller.account:
        raise denied(caller, action, layer.arn, kind="resource")
    if layer.region != caller.region:
        raise not_found(f"Layers from '{layer.region}' are not reachable in this region ('{caller.region}')")
    return layer


def _number(request: Request) -> int:
    text = request.params["version"]
    if not _VERSION.match(text):
        raise Refused("SerializationException", f"STRING_VALUE can not be converted to a Long: {text[:50]}")
    if int(text) < 1:
        raise invalid("Layer Version Cannot be less than 1")
    return int(text)


def _named(body: Body, member: str, choices: Sequence[str], *, most: int) -> list[str] | None:
    """Return a list of words; None where it is left out."""
    found = body.get(member, list)
    if found is None:
        return None
    if any(each not in choices for each in found):
        shown = ", ".join(str(each)[:20] for each in found[:most])
        body.refuse(
            f"[{shown}]", member, f"satisfy constraint: [Member must satisfy enum value set: [{', '.join(choices)}]]"
        )
    if len(found) > most:
        body.refuse(f"[{len(found)} items]", member, f"have length less than or equal to {most}")
    return [str(each) for each in found]


def _filters(query: dict[str, str]) -> tuple[str | None, str | None]:
    found = []
    for member, choices in (("CompatibleRuntime", RUNTIMES), ("CompatibleArchitecture", ARCHITECTURES)):
        value = query.get(member)
        if value is not None and value not in choices:
            name = member[:1].lower() + member[1:]
            raise violated(value, name, f"satisfy enum value set: [{', '.join(choices)}]")
        found.append(value)
    return found[0], found[1]


def _check_revision(request: Request, version: LayerVersion) -> None:
    given = dict(request.query()).get("RevisionId")
    if given is not None and given != version.policy_revision:
        raise stale("GetLayerPolicy")


def _layer_view(latest: LayerVersion) -> dict[str, Any]:
    """Return LayersListItem of the layer whose latest version that suits is given."""
    layer = latest.layer
    return {"LayerName": layer.name, "LayerArn": layer.arn, "LatestMatchingVersion": _view(latest)}


def _view(version: LayerVersion) -> dict[str, Any]:
    """Return LayerVersionsListItem."""
    shown: dict[str, Any] = {
        "LayerVersionArn": version.arn,
        "Version": version.version,
        "Description": version.description,
        "CreatedDate": version.created_at,
    }
    optional = {
        "CompatibleRuntimes": version.runtimes,
        "CompatibleArchitectures": version.architectures,
        "LicenseInfo": version.license_info,
    }
    return shown | {name: value for name, value in optional.items() if value is not None}

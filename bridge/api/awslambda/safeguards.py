"""Code-signing configurations and runtime management of Lambda's API: kept and shown, and nothing here acts on them."""

import re
import secrets
import string
from collections.abc import Mapping
from typing import Any, Final

from bridge.api.awslambda.control import stamp
from bridge.api.awslambda.errors import Refused, invalid, not_found
from bridge.api.awslambda.names import FunctionName, read_name
from bridge.api.awslambda.paging import page
from bridge.api.awslambda.reading import ReadOperations
from bridge.api.awslambda.shapes import DESCRIPTION_MAX_CHARS, Body
from bridge.api.http import Answer, Request, json_answer
from bridge.core.function import LATEST, function_arn, plain_name
from bridge.core.ports import Clock
from bridge.registry.access import Caller
from bridge.registry.safeguards import Safeguards

PUBLISHERS_MAX: Final = 20
_ID_CHARS: Final = 17
_ALPHABET: Final = string.ascii_lowercase + string.digits
_ARN_MAX_CHARS: Final = 200
_ARN_PATTERN: Final = r"arn:aws:lambda:[a-z0-9-]+:\d{12}:code-signing-config:csc-[a-z0-9]{17}"
_PROFILE_PATTERN: Final = r"arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\-])+:([a-z]{2}(-gov)?-[a-z]+-\d{1})?:(\d{12})?:(.*)"
_RUNTIME_PATTERN: Final = r"arn:(aws[a-zA-Z-]*):lambda:[a-z0-9-]+:(:runtime:.+|\d{12}:runtime/.+)"


class SigningOperations:
    """Handlers of code-signing configurations (API_CreateCodeSigningConfig and its like).

    Args:
        safeguards: what is kept.
        reading: finds functions, made or declared.
        clock: the daemon's.
    """

    def __init__(self, safeguards: Safeguards, reading: ReadOperations, clock: Clock) -> None:
        self._kept = safeguards
        self._reading = reading
        self._clock = clock

    async def create(self, request: Request, caller: Caller) -> Answer:
        """CreateCodeSigningConfig."""
        body = Body.of(await request.body())
        made_id = "csc-" + "".join(secrets.choice(_ALPHABET) for _ in range(_ID_CHARS))
        config = _settings(body, {}, creates=True) | {
            "CodeSigningConfigId": made_id,
            "CodeSigningConfigArn": f"arn:aws:lambda:{caller.region}:{caller.account}:code-signing-config:{made_id}",
            "LastModified": stamp(self._clock),
        }
        await self._kept.configs.set((config["CodeSigningConfigArn"], ""), config)
        return json_answer({"CodeSigningConfig": config}, status=201)

    async def get(self, request: Request, caller: Caller) -> Answer:
        """GetCodeSigningConfig."""
        return json_answer({"CodeSigningConfig": self._config(request.params["arn"], caller)})

    async def update(self, request: Request, caller: Caller) -> Answer:
        """UpdateCodeSigningConfig: what is not given stays."""
        found = self._config(request.params["arn"], caller)
        body = Body.of(await request.body())
        config = {**found, **_settings(body, found, creates=False), "LastModified": stamp(self._clock)}
        await self._kept.configs.set((config["CodeSigningConfigArn"], ""), config)
        return json_answer({"CodeSigningConfig": config})

    async def delete(self, request: Request, caller: Caller) -> Answer:
        """DeleteCodeSigningConfig, of one that no function has."""
        arn = self._config(request.params["arn"], caller)["CodeSigningConfigArn"]
        if functions := self._kept.functions_of(arn):
            text = f"The code signing configuration {arn} is in use by {functions[0]}"
            raise Refused("ResourceConflictException", text, status=409)
        await self._kept.configs.set((arn, ""), None)
        return Answer(204)

    async def list(self, request: Request, caller: Caller) -> Answer:
        """ListCodeSigningConfigs of the caller's name space."""
        start = f"arn:aws:lambda:{caller.region}:{caller.account}:"
        found = [(arn, config) for (arn, _), config in self._kept.configs.all().items() if arn.startswith(start)]
        query = dict(request.query())
        return page(query, "CodeSigningConfigs", found, key=lambda each: each[0], show=lambda each: each[1])

    async def list_functions(self, request: Request, caller: Caller) -> Answer:
        """ListFunctionsByCodeSigningConfig."""
        arn = self._config(request.params["arn"], caller)["CodeSigningConfigArn"]
        return page(dict(request.query()), "FunctionArns", self._kept.functions_of(arn), key=str, show=str)

    # --- of a function --------------------------------------------------------------------------------------------

    async def put_of(self, request: Request, caller: Caller) -> Answer:
        """PutFunctionCodeSigningConfig."""
        name = self._function(request, caller)
        body = Body.of(await request.body())
        arn = signing_config(body, required=True) or ""
        body.finish()
        check_signing_config(self._kept, arn, caller)
        await self._kept.set_config(_arn(name, caller), arn)
        return json_answer({"CodeSigningConfigArn": arn, "FunctionName": plain_name(name.name)})

    async def get_of(self, request: Request, caller: Caller) -> Answer:
        """GetFunctionCodeSigningConfig; a function without one is no error."""
        name = self._function(request, caller)
        found = self._kept.config_of.get((_arn(name, caller), ""))
        return json_answer(
            {} if found is None else {"CodeSigningConfigArn": found["arn"], "FunctionName": plain_name(name.name)}
        )

    async def delete_of(self, request: Request, caller: Caller) -> Answer:
        """DeleteFunctionCodeSigningConfig."""
        name = self._function(request, caller)
        await self._kept.config_of.set((_arn(name, caller), ""), None)
        return Answer(204)

    def _config(self, arn: str, caller: Caller) -> Mapping[str, Any]:
        found = _found(self._kept, arn, caller)
        if found is None:
            raise not_found(f"The Lambda code signing configuration {arn[:200]} can not be found.")
        return found

    def _function(self, request: Request, caller: Caller) -> FunctionName:
        name = read_name(request.params["fn"], caller)
        if name.qualifier:
            raise invalid("Code signing is the function's: give its name or ARN without a version or alias.")
        self._reading.find(name, caller)
        return name


class RuntimeManagementOperations:
    """Handlers of PutRuntimeManagementConfig and GetRuntimeManagementConfig.

    Args:
        safeguards: what is kept.
        reading: finds functions, made or declared.
    """

    def __init__(self, safeguards: Safeguards, reading: ReadOperations) -> None:
        self._kept = safeguards
        self._reading = reading

    async def put(self, request: Request, caller: Caller) -> Answer:
        """PutRuntimeManagementConfig of `$LATEST` or a version."""
        place = self._place(request, caller)
        body = Body.of(await request.body())
        body.text("UpdateRuntimeOn", required=True)
        when = body.choice("UpdateRuntimeOn", ("Auto", "Manual", "FunctionUpdate"))
        arn = body.text("RuntimeVersionArn", pattern=_RUNTIME_PATTERN, most=2048)
        body.finish()
        if (arn is None) == (when == "Manual"):
            raise invalid("RuntimeVersionArn is needed where UpdateRuntimeOn is Manual, and refused where it is not.")
        config = {"UpdateRuntimeOn": when} | ({} if arn is None else {"RuntimeVersionArn": arn})
        await self._kept.runtime_of.set(place, config)
        return json_answer(config | {"FunctionArn": ":".join(place)})

    async def get(self, request: Request, caller: Caller) -> Answer:
        """GetRuntimeManagementConfig; Auto where nothing was said."""
        place = self._place(request, caller)
        return json_answer(
            {"UpdateRuntimeOn": "Auto"}
            | dict(self._kept.runtime_of.get(place) or {})
            | {"FunctionArn": ":".join(place)}
        )

    def _place(self, request: Request, caller: Caller) -> tuple[str, str]:
        name = read_name(request.params["fn"], caller, qualifier=dict(request.query()).get("Qualifier"))
        qualifier = name.qualifier or LATEST
        function = self._reading.find(name, caller)
        if qualifier != LATEST and not qualifier.isdecimal():
            raise invalid("Runtime management is of $LATEST or a version, not of an alias.")
        if qualifier != LATEST and qualifier not in function.versions:
            raise not_found(f"Function not found: {_arn(name, caller)}:{qualifier}")
        return _arn(name, caller), qualifier


def signing_config(body: Body, *, required: bool = False) -> str | None:
    """Return CodeSigningConfigArn of a body, whose mistakes `Body.finish` tells."""
    return body.text("CodeSigningConfigArn", pattern=_ARN_PATTERN, most=_ARN_MAX_CHARS, required=required)


def check_signing_config(kept: Safeguards, arn: str, caller: Caller) -> None:
    """Refuse that a function of the caller's gets a configuration that is not there, in the caller's name space."""
    if _found(kept, arn, caller) is None:
        text = (
            "The code signing configuration cannot be found. "
            f"Check that the provided configuration is not deleted: {arn}."
        )
        raise Refused("CodeSigningConfigNotFoundException", text, status=404)


def _found(kept: Safeguards, arn: str, caller: Caller) -> Mapping[str, Any] | None:
    is_own = arn.startswith(f"arn:aws:lambda:{caller.region}:{caller.account}:")
    return kept.configs.get((arn, "")) if is_own else None


def _arn(name: FunctionName, caller: Caller) -> str:
    return function_arn(name.name, region=caller.region, account=caller.account)


def _settings(body: Body, found: Mapping[str, Any], *, creates: bool) -> dict[str, Any]:
    description = body.text("Description", most=DESCRIPTION_MAX_CHARS)
    publishers = body.inner("AllowedPublishers")
    if publishers is None and creates:
        body.refuse(None, "AllowedPublishers", "not be null")
    arns = None if publishers is None else publishers.get("SigningProfileVersionArns", list)
    if publishers is not None:
        if not arns or len(arns) > PUBLISHERS_MAX:
            body.refuse(None if arns is None else len(arns), "AllowedPublishers.SigningProfileVersionArns",
                        f"have length between 1 and {PUBLISHERS_MAX}")  # fmt: skip
        for arn in arns or ():
            if not isinstance(arn, str):
                raise Refused("SerializationException", "SigningProfileVersionArns holds Strings")
            if not re.fullmatch(_PROFILE_PATTERN, arn):
                body.refuse(arn, "SigningProfileVersionArns", f"satisfy regular expression pattern: {_PROFILE_PATTERN}")
    policies = body.inner("CodeSigningPolicies")
    untrusted = None if policies is None else policies.choice("UntrustedArtifactOnDeployment", ("Warn", "Enforce"))
    body.finish()
    before = found.get("CodeSigningPolicies", {"UntrustedArtifactOnDeployment": "Warn"})
    return {
        "Description": found.get("Description", "") if description is None else description,
        "AllowedPublishers": found.get("AllowedPublishers") if arns is None else {"SigningProfileVersionArns": arns},
        "CodeSigningPolicies": before if untrusted is None else {"UntrustedArtifactOnDeployment": untrusted},
    }

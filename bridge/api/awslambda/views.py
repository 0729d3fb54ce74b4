"""Functions as Lambda's API shows them (API_FunctionConfiguration and others)."""

import hashlib
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from bridge.api.awslambda.control import PENDING, MadeFunctions
from bridge.core.errors import SealBroken
from bridge.core.function import LATEST, EventInvokeConfig, Function, FunctionVersion, function_arn, plain_name
from bridge.core.network import vpc_id
from bridge.core.outcome import LOCAL
from bridge.registry.access import Caller
from bridge.registry.made import MadeAlias, MadeFunction, MadeVersion
from bridge.registry.snapshots import declared_revision, declared_settings

_CREATING: Final = "The function is being created."


def configuration(function: Function, version: FunctionVersion, caller: Caller, *, qualified: bool) -> dict[str, Any]:
    """Return FunctionConfiguration.

    Left out: variables (some are secrets, which the file keeps), and what a folder does not have (CodeSha256, CodeSize,
    LastModified).

    Args:
        function: it.
        version: which of its versions.
        caller: whose name space the ARN is of.
        qualified: the ARN names the version.
    """
    arn = function_arn(function.name, region=caller.region, account=caller.account)
    settings = with_vpc_id(declared_settings(version, account=caller.account), version.space)
    return settings | {
        "FunctionName": function.name,
        "FunctionArn": f"{arn}:{version.version}" if qualified else arn,
        "Version": version.version,
        "RevisionId": declared_revision(version),
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "PackageType": "Zip",
    }


def made_configuration(
    functions: MadeFunctions, made: MadeFunction, version: MadeVersion, *, qualified: bool
) -> dict[str, Any]:
    """Return FunctionConfiguration of a version that Lambda's API made, or of `$LATEST` of a function of the file.

    Variables that cannot be opened are told as AWS tells it, in Environment.Error; those of the file are left out.
    """
    if made.is_declared and version.version == LATEST:
        home, function = functions.home, functions.declared(made.name)
        caller = Caller(account=home.account, region=home.region)
        return configuration(function, function.latest, caller, qualified=qualified)
    arn, state = functions.home.arn(made.name), functions.state(made.name)
    shown: dict[str, Any] = {
        **with_vpc_id(version.settings, functions.home.within(made.name).name),
        "FunctionName": plain_name(made.name),
        "FunctionArn": f"{arn}:{version.version}" if qualified else arn,
        "CodeSha256": version.code_sha256,
        "CodeSize": version.code_size,
        "LastModified": version.modified_at,
        "Version": version.version,
        "RevisionId": version.revision_id,
        "PackageType": "Zip",
        "State": "Active",
        "LastUpdateStatus": "Successful",
    }
    if runtime := shown.get("Runtime"):
        region = functions.home.within(made.name).region
        shown["RuntimeVersionConfig"] = {"RuntimeVersionArn": runtime_version_arn(runtime, region)}
    if state == PENDING:
        del shown["LastUpdateStatus"]
        shown |= {"State": PENDING, "StateReason": _CREATING, "StateReasonCode": "Creating"}
    elif version.version == LATEST and state:
        shown |= {
            "LastUpdateStatus": state,
            "LastUpdateStatusReason": _CREATING,
            "LastUpdateStatusReasonCode": "Creating",
        }
    if version.environment and not made.is_declared:
        try:
            shown["Environment"] = {"Variables": dict(functions.variables(made.name, version))}
        except SealBroken as error:
            shown["Environment"] = {"Error": {"ErrorCode": error.code, "Message": str(error)}}
    return shown


def with_vpc_id(settings: Mapping[str, Any], space: str) -> dict[str, Any]:
    """Return settings as they are shown: VpcConfig with its VpcId, that of the account and region."""
    if "VpcConfig" not in settings:
        return dict(settings)
    return {**settings, "VpcConfig": {**settings["VpcConfig"], "VpcId": vpc_id(space)}}


@lru_cache(maxsize=256)
def runtime_version_arn(runtime: str, region: str) -> str:
    """Return the ARN of what runs a runtime here: the same until the daemon runs on another Python."""
    digest = hashlib.sha256(f"{runtime} {sys.version}".encode()).hexdigest()
    return f"arn:aws:lambda:{region}::runtime:{digest}"


def alias_view(alias: MadeAlias, arn: str) -> dict[str, Any]:
    """Return AliasConfiguration."""
    shown: dict[str, Any] = {
        "AliasArn": arn,
        "Name": alias.name,
        "FunctionVersion": alias.version,
        "Description": alias.description,
        "RevisionId": alias.revision_id,
    }
    if alias.weights:
        shown["RoutingConfig"] = {"AdditionalVersionWeights": dict(alias.weights)}
    return shown


def made_event_invoke(config: Mapping[str, Any], arn: str) -> dict[str, Any]:
    """Return FunctionEventInvokeConfig as it was set; `arn` names the qualifier."""
    targets = {"OnSuccess": {}, "OnFailure": {}, **config.get("DestinationConfig", {})}
    return {**config, "FunctionArn": arn, "DestinationConfig": targets}


def event_invoke_config(config: EventInvokeConfig, arn: str) -> dict[str, Any]:
    """Return FunctionEventInvokeConfig; `arn` names the qualifier."""
    targets: dict[str, dict[str, str]] = {"OnSuccess": {}, "OnFailure": {}}
    if config.on_success:
        targets["OnSuccess"] = {"Destination": config.on_success}
    if config.on_failure != LOCAL:
        targets["OnFailure"] = {"Destination": config.on_failure}
    return {
        "FunctionArn": arn,
        "MaximumRetryAttempts": config.maximum_retry_attempts,
        "MaximumEventAgeInSeconds": config.maximum_event_age_s,
        "DestinationConfig": targets,
    }

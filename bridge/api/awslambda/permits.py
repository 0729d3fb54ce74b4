"""Whether a caller of Lambda's API may do what it asks for: its key's actions, and the function's resource policy."""

from dataclasses import replace
from typing import Final

from bridge.api.awslambda.names import denied, named_by
from bridge.api.http import Request
from bridge.core.function import LATEST, function_arn
from bridge.registry.access import Caller
from bridge.registry.layers import read_layer, read_version_arn
from bridge.registry.policies import ResourcePolicies, caller_keys
from bridge.registry.statements import Question

CREATE_FUNCTION: Final = "lambda:CreateFunction"
_MAPPING: Final = ":event-source-mapping:"
_SIGNING: Final = ":code-signing-config:"


def admitted(request: Request, caller: Caller, action: str, policies: ResourcePolicies) -> Caller:
    """Return the caller, in the name space of the account whose function it asks for.

    Raises:
        Refused: AccessDeniedException.
    """
    named = named_by(request.params["fn"], dict(request.query())) if "fn" in request.params else None
    if named is None:
        if action == CREATE_FUNCTION and caller.role is not None:
            return caller  # the operation asks, once it knows the name
        if not caller.may(action, resource := _resource(request, caller)):
            raise denied(caller, action, resource)
        return caller
    account, name = named[0] or caller.account, named[1]
    if caller.role is None and account == caller.account and caller.may(action):
        return caller  # within an account the key's actions suffice, whatever the policy says
    arn = function_arn(name.name, region=caller.region, account=account)
    if kind := policies.refusing((arn, name.qualifier), caller, question(caller, action)):
        resource = f"{arn}:{name.qualifier}" if name.qualifier not in ("", LATEST) else arn
        raise denied(caller, action, resource, kind=kind)
    return replace(caller, account=account, foreign="" if account == caller.signer else caller.signer)


def _resource(request: Request, caller: Caller) -> str:
    """Return the ARN of what a request names beside a function in its path, in the spelling that statements have."""
    params, arn = request.params, request.params.get("arn", "")
    if "uuid" in params or _MAPPING in arn:
        uuid = (params.get("uuid") or arn.rpartition(":")[2]).lower()
        return f"arn:aws:lambda:{caller.region}:{caller.account}{_MAPPING}{uuid}"
    if arn:
        named = None if _SIGNING in arn else named_by(arn, {})
        if named is None:
            return arn
        return function_arn(named[1].name, region=caller.region, account=named[0] or caller.account)
    if "layer" not in params:
        query = dict(request.query())
        found = read_version_arn(query.get("Arn", "")) if "find" in query else None
        return "*" if found is None else found[0].version_arn(found[1])
    layer = read_layer(params["layer"], account=caller.account, region=caller.region)
    if layer is None:
        return "*"
    return f"{layer.arn}:{params['version'].lstrip('0')}" if "version" in params else layer.arn


def question(caller: Caller, action: str) -> Question:
    """Return what a policy is asked about a caller."""
    role = caller.role.arn if caller.role is not None else ""
    return Question(action=action, account=caller.account, arn=caller.arn, role=role, keys=caller_keys(caller))

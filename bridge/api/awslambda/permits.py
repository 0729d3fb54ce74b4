"""Whether a caller of Lambda's API may do what it asks for: its key's actions, and the function's resource policy."""

from dataclasses import replace

from bridge.api.awslambda.names import denied, named_by
from bridge.api.http import Request
from bridge.core.function import LATEST, function_arn
from bridge.registry.access import Caller
from bridge.registry.layers import read_layer
from bridge.registry.policies import ResourcePolicies
from bridge.registry.statements import PRINCIPAL_ORG, SOURCE_ACCOUNT, Question


def admitted(request: Request, caller: Caller, action: str, policies: ResourcePolicies) -> Caller:
    """Return the caller, in the name space of the account whose function it asks for.

    Within an account the key's actions suffice, and so does a statement that names the caller. A caller of another
    account than the function's needs both (IAM User Guide, reference_policies_evaluation-logic-cross-account.html).

    Raises:
        Refused: AccessDeniedException.
    """
    named = named_by(request.params["fn"], dict(request.query())) if "fn" in request.params else None
    if named is None:
        if not caller.may(action):
            raise denied(caller, action, _resource(request, caller))
        return caller
    account, name = named[0] or caller.account, named[1]
    arn = function_arn(name.name, region=caller.region, account=account)
    resource = f"{arn}:{name.qualifier}" if name.qualifier not in ("", LATEST) else arn
    is_granted = policies.allows((arn, name.qualifier), question(caller, action))
    if account == caller.account:
        if not caller.may(action) and not is_granted:
            raise denied(caller, action, resource)
        return caller
    for is_allowed, kind in ((caller.may(action), "identity"), (is_granted, "resource")):
        if not is_allowed:
            raise denied(caller, action, resource, kind=kind)
    return replace(caller, account=account)


def _resource(request: Request, caller: Caller) -> str:
    """Return the ARN of what is no function, as far as the path names one."""
    if "layer" not in request.params:
        return "*"
    layer = read_layer(request.params["layer"], account=caller.account, region=caller.region)
    if layer is None:
        return "*"
    return f"{layer.arn}:{request.params['version']}" if "version" in request.params else layer.arn


def question(caller: Caller, action: str) -> Question:
    """Return what a policy is asked about a caller."""
    keys = {SOURCE_ACCOUNT: caller.account}
    if caller.organization:
        keys[PRINCIPAL_ORG] = caller.organization
    return Question(action=action, account=caller.account, arn=caller.arn, keys=keys)

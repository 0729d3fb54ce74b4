"""AddPermission and RemovePermission of Lambda's API (semantics 5.7)."""

import re
from collections.abc import Mapping
from typing import Any, Final

from bridge.api.awslambda.control import MadeFunctions
from bridge.api.awslambda.errors import Refused, invalid, not_found, stale, violated
from bridge.api.awslambda.names import read_name
from bridge.api.awslambda.reading import ReadOperations
from bridge.api.awslambda.shapes import Body
from bridge.api.http import Answer, Request, json_answer, line
from bridge.core import limits
from bridge.core.function import LATEST
from bridge.registry.access import Caller
from bridge.registry.attached import Place, place_arn
from bridge.registry.policies import ResourcePolicies
from bridge.registry.statements import INVOKE, INVOKE_URL, BadPrincipal, make_statement, policy_document

ACTION_PATTERN: Final = r"(lambda:[*]|lambda:[a-zA-Z]+|[*])"
STATEMENT_ID_PATTERN: Final = "([a-zA-Z0-9-_]+)"
SOURCE_ARN_PATTERN: Final = (
    r"arn:(aws[a-zA-Z0-9-]*|bridge):([a-zA-Z0-9\-])+:"
    r"((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1})?:(\d{12})?:(.*)"
)
"""AWS's, and ARNs of push sources that are no service's of AWS (`arn:bridge:webhook:…`)."""
STATEMENT_ID_MAX_CHARS: Final = 100
PRINCIPAL_MAX_CHARS: Final = 2048
SOURCE_ARN_MAX_CHARS: Final = 10_000
TOKEN_MAX_CHARS: Final = 256
_REMOVED_ID: Final = re.compile(r"[a-zA-Z0-9._-]{1,100}\Z")


class PermissionOperations:
    """Handlers of what changes resource policies, of declared functions, too.

    Args:
        policies: they are kept there.
        made: whose changes no policy's may come between: a function's policies go with it.
        reading: finds functions.
    """

    def __init__(self, policies: ResourcePolicies, made: MadeFunctions, reading: ReadOperations) -> None:
        self._policies = policies
        self._made = made
        self._reading = reading

    async def add(self, request: Request, caller: Caller) -> Answer:
        """API_AddPermission."""
        body = Body.of(await request.body())
        sid = body.text("StatementId", pattern=STATEMENT_ID_PATTERN, most=STATEMENT_ID_MAX_CHARS, required=True)
        action = body.text("Action", pattern=ACTION_PATTERN, required=True)
        principal = body.text("Principal", pattern=r"[^\s]+", most=PRINCIPAL_MAX_CHARS, required=True)
        conditions = _conditions(body)
        body.finish()
        _check_qualifier(request, caller)
        assert sid is not None
        assert action is not None
        assert principal is not None
        _check_url_conditions(action, conditions)
        async with self._made.changing():
            place = self._reading.policy_place(request, caller)
            self._check_revision(place, body.get("RevisionId", str))
            try:
                statement = make_statement(
                    sid, action=action, principal=principal, resource=place_arn(place), conditions=conditions
                )
            except BadPrincipal as error:
                raise invalid(
                    "The provided principal was invalid. Please check the principal and try again."
                ) from error
            if any(each["Sid"] == sid for each in self._policies.statements(place)):
                text = (
                    f"The statement id ({sid}) provided already exists. Please provide a new statement id, or remove "
                    "the existing statement."
                )
                raise Refused("ResourceConflictException", text, status=409)
            before = self._policies.added(place)
            statements = [*(() if before is None else before.statements), statement]
            if (size := len(policy_document(statements).encode())) > limits.POLICY_MAX_BYTES:
                text = f"The final policy size ({size}) is bigger than the limit ({limits.POLICY_MAX_BYTES})."
                raise Refused("PolicyLengthExceededException", text)
            await self._policies.put(place, statements)
        return json_answer({"Statement": line(statement).decode().rstrip("\n")}, status=201)

    async def remove(self, request: Request, caller: Caller) -> Answer:
        """API_RemovePermission; what the file implies is not the API's to remove."""
        sid = request.params["sid"]
        if not _REMOVED_ID.match(sid):
            raise violated(sid, "statementId", "satisfy regular expression pattern: ([a-zA-Z0-9-_.]+)")
        async with self._made.changing():
            place = self._reading.policy_place(request, caller)
            if not self._policies.statements(place):
                raise not_found("No policy is associated with the given resource.")
            self._check_revision(place, dict(request.query()).get("RevisionId"))
            before = self._policies.added(place)
            kept = [] if before is None else [each for each in before.statements if each["Sid"] != sid]
            if before is None or len(kept) == len(before.statements):
                if any(each["Sid"] == sid for each in self._policies.implied(place)):
                    raise invalid(
                        f'The statement {sid} is implied by the daemon\'s file: give its source policy = "explicit" '
                        "there (then `bridge reload`)"
                    )
                raise not_found(f"Statement {sid} is not found in resource policy.")
            await self._policies.put(place, kept)
        return Answer(204)

    def _check_revision(self, place: Place, given: str | None) -> None:
        """Refuse what was asked for of another revision; where there is no policy, of the function's own."""
        if given is None:
            return
        if self._policies.statements(place):
            current = self._policies.revision(place)
        else:
            made, qualifier = self._made.get(self._made.home.called(place[0])), place[1]
            found = None if made is None else made.aliases.get(qualifier) or made.find(qualifier)
            current = given if found is None else found.revision_id
        if given != current:
            raise stale("GetPolicy")


def _conditions(body: Body) -> Mapping[str, str]:
    via_url = body.get("InvokedViaFunctionUrl", bool)
    found: dict[str, Any] = {
        "SourceArn": body.text("SourceArn", pattern=SOURCE_ARN_PATTERN, most=SOURCE_ARN_MAX_CHARS),
        "SourceAccount": body.text("SourceAccount", pattern=r"\d{12}"),
        "EventSourceToken": body.text("EventSourceToken", pattern=r"[a-zA-Z0-9._\-]+", most=TOKEN_MAX_CHARS),
        "PrincipalOrgID": body.text("PrincipalOrgID", pattern="o-[a-z0-9]{10,32}"),
        "FunctionUrlAuthType": body.choice("FunctionUrlAuthType", ("NONE", "AWS_IAM")),
        "InvokedViaFunctionUrl": None if via_url is None else str(via_url).lower(),
    }
    return {member: value for member, value in found.items() if value is not None}


def _check_url_conditions(action: str, conditions: Mapping[str, str]) -> None:
    """Refuse what holds for function URLs in a statement for something else."""
    for member, owner in (("FunctionUrlAuthType", INVOKE_URL), ("InvokedViaFunctionUrl", INVOKE)):
        if member in conditions and action != owner:
            raise invalid(f"{member} is only supported for {owner} action")


def _check_qualifier(request: Request, caller: Caller) -> None:
    qualifier = dict(request.query()).get("Qualifier")
    if read_name(request.params["fn"], caller, qualifier=qualifier).qualifier == LATEST:
        raise invalid("We currently do not support adding policies for $LATEST.")

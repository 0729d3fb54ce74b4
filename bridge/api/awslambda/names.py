"""How callers name a function: name, partial or full ARN, qualifier in name and query (semantics 0.3)."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from bridge.api.awslambda.errors import Refused, invalid, not_found, violated
from bridge.core.function import function_arn
from bridge.registry.access import Caller

VALUE_MAX_CHARS: Final = 140
PATTERN: Final = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?([a-z]{2}(-gov)?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9-_]+)"
    r"(:(\$LATEST|[a-zA-Z0-9-_]+))?"
)
"""AWS's own, as its errors show it (API_Invoke, FunctionName)."""
_FORM: Final = re.compile(
    r"(?:arn:aws[a-zA-Z-]*:lambda:(?P<region>[a-z]{2}(?:-[a-z]+)+-\d{1,2}):)?(?:(?P<account>\d{12}):)?"
    r"(?:function:)?(?P<name>[a-zA-Z0-9_-]{1,64})(?::(?P<qualifier>\$LATEST|[a-zA-Z0-9_-]{1,128}))?\Z"
)
_QUALIFIER: Final = re.compile(r"(?:\$LATEST|[a-zA-Z0-9_-]{1,128})\Z")
QUALIFIER_PATTERN: Final = r"(|[a-zA-Z0-9$_-]+)"


class FunctionName(NamedTuple):
    """A function as a caller named it."""

    name: str
    """What it is called where the functions of all name spaces are, see `Space.key`."""
    qualifier: str
    """Empty: none was given."""

    @property
    def target(self) -> str:
        """`name[:qualifier]`."""
        return f"{self.name}:{self.qualifier}" if self.qualifier else self.name


class _Parsed(NamedTuple):
    region: str
    account: str
    name: str
    qualifier: str


@lru_cache(maxsize=1024)
def _parsed(value: str) -> _Parsed | None:
    """Return what a name of at most `VALUE_MAX_CHARS` says, empty where it does not; None: it is none."""
    found = _FORM.match(value)
    return None if found is None else _Parsed(*(found[part] or "" for part in _Parsed._fields))


def read_name(value: str, caller: Caller, *, qualifier: str | None = None) -> FunctionName:
    """Return the function that a path and its query name, in the caller's name space.

    Raises:
        Refused: neither name nor ARN, two different qualifiers, another region, another account.
    """
    if len(value) > VALUE_MAX_CHARS:
        raise violated(value, "functionName", f"have length less than or equal to {VALUE_MAX_CHARS}")
    found = _parsed(value)
    if found is None:
        raise violated(value, "functionName", f"satisfy regular expression pattern: {PATTERN}")
    if qualifier is not None and not _QUALIFIER.match(qualifier):
        raise violated(qualifier, "qualifier", f"satisfy regular expression pattern: {QUALIFIER_PATTERN}")
    if found.region and found.region != caller.region:
        raise not_found(f"Functions from '{found.region}' are not reachable in this region ('{caller.region}')")
    given = found.qualifier
    if given and qualifier and given != qualifier:
        raise invalid("The derived qualifier from the function name does not match the specified qualifier.")
    if found.account and found.account != caller.account:
        arn = function_arn(found.name, region=caller.region, account=found.account)
        raise denied(caller, "lambda:InvokeFunction", arn)
    return FunctionName(caller.key(found.name), given or qualifier or "")


def named_by(value: str, query: Mapping[str, str]) -> tuple[str, FunctionName] | None:
    """Return the account (empty: the caller's) and the function that a path and its query name; None: none that can be.

    The name is the one that was given.

    Raises nothing: what is wrong with it `read_name` says.
    """
    found = _parsed(value) if len(value) <= VALUE_MAX_CHARS else None
    if found is None:
        return None
    return found.account, FunctionName(found.name, found.qualifier or query.get("Qualifier", ""))


def denied(caller: Caller, action: str, resource: str, *, kind: str = "identity") -> Refused:
    """Return the refusal of what a caller may not do, in IAM's words; `kind` of policy: identity or resource."""
    text = (
        f"User: {caller.arn} is not authorized to perform: {action} on resource: {resource} because no {kind}-based "
        f"policy allows the {action} action"
    )
    return Refused("AccessDeniedException", text, status=403, kind="")

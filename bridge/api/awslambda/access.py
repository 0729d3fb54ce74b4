"""Who calls Lambda's API: a signature that is checked, or nobody is asked (`auth = "none"`)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bridge.api.awslambda.errors import Refused
from bridge.api.http import Request
from bridge.core.function import ACCOUNT_DEFAULT, REGION_DEFAULT, plain_name, space_name
from bridge.core.ports import Clock
from bridge.core.spaces import Space
from bridge.registry.access import AccessKey, Caller, with_token
from bridge.registry.roles import Role
from bridge.registry.sigv4 import UNKNOWN_CALLER, SignatureRefused, SignedRequest, check_signature, claimed_signer
from bridge.util.quick import maker

_caller: Final = maker(Caller)
_ACCOUNT: Final = re.compile(r"[0-9]{12}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRules:
    """Who may call, as the file says."""

    keys: Mapping[str, AccessKey] = field(default_factory=dict)
    """By key id."""
    asks: bool = True
    """False: nobody is asked who they are (only ever on loopback)."""
    account: str = ACCOUNT_DEFAULT
    """Of callers that name none."""
    region: str = REGION_DEFAULT
    minted: Callable[[str], AccessKey | None] = lambda _: None
    """Returns the key of a function's own by its id, until it expires."""
    role_of: Callable[[str], Role] | None = None
    """Returns the role that such a key acts as, by its ARN."""

    def key(self, key_id: str) -> AccessKey | None:
        """Return a key; None: there is none of that id."""
        return self.keys.get(key_id) or self.minted(key_id)

    @property
    def home(self) -> Space:
        """The file's name space."""
        return Space(self.account, self.region)

    @property
    def nobody(self) -> Caller:
        """A caller that nobody asked who it is."""
        return _caller(account=self.account, region=self.region, home=self.home)


def operator(request: Request, rules: AccessRules) -> Caller:
    """Return the operator as a caller of the name space that the function in the path names: `NAME@REGION.ACCOUNT`.

    The path then has the name alone; without a name space the file's is meant.
    """
    named, colon, qualifier = request.params.get("fn", "").partition(":")
    if not space_name(named):
        return rules.nobody
    request.params["fn"] = plain_name(named) + colon + qualifier
    space = rules.home.within(named)
    return _caller(account=space.account, region=space.region, home=rules.home)


def authenticate(request: Request, body_hash: Callable[[], str], rules: AccessRules, clock: Clock) -> Caller:
    """Return who calls; `body_hash` returns the SHA-256 of the body, hexadecimal: asked only where it is checked.

    The region is that of the signature's scope, the account that of the key. Where nobody is asked, a key id of 12
    digits is the account, and what is not signed at all counts as the file's own account and region.

    Raises:
        Refused: not signed, or not by a key of ours, in AWS's words.
    """
    if not rules.asks:
        claimed = claimed_signer(request.headers) if "authorization" in request.headers else None
        if claimed is None:
            return rules.nobody
        account = claimed.key_id if _ACCOUNT.match(claimed.key_id) else rules.account
        region = claimed.region or rules.region
        return _caller(account=account, region=region, key_id=claimed.key_id, home=rules.home)
    signed = SignedRequest(
        method=request.method,
        path=request.path,
        query=request.scope.get("query_string", b"").decode("latin-1"),
        headers=request.headers,
        body_hash=body_hash(),
    )
    try:
        signer = check_signature(signed, secret_of=lambda key_id: _secret(rules, key_id), now=clock.stepped())
        key = with_token(rules.key(signer.key_id), request.headers)
    except SignatureRefused as error:
        raise Refused(error.code, str(error), status=error.status, kind="") from error
    if key.role and rules.role_of is not None:
        role = rules.role_of(key.role)
        if not role.is_known:  # it has left the file since: a key of what nobody knows opens nothing
            raise Refused("UnrecognizedClientException", UNKNOWN_CALLER, status=403, kind="")
        return _caller(
            account=key.account,
            region=signer.region,
            key_id=key.id,
            allow=(),
            role=role,
            session=key.session,
            home=rules.home,
        )
    return _caller(
        account=key.account,
        region=signer.region,
        key_id=key.id,
        allow=key.allow,
        organization=key.organization,
        home=rules.home,
    )


def _secret(rules: AccessRules, key_id: str) -> str | None:
    key = rules.key(key_id)
    return None if key is None else key.secret

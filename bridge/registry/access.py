"""Access keys and what they allow: who a caller of Lambda's API is (pure)."""

import hmac
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from bridge.core.function import Function, space_name
from bridge.core.spaces import Space
from bridge.registry.roles import Role
from bridge.registry.sigv4 import UNKNOWN_CALLER, SignatureRefused

ACTION_PATTERN: Final = re.compile(r"lambda:[A-Za-z*?]{1,64}\Z|\*\Z")
"""An action or a pattern of actions: `lambda:InvokeFunction`, `lambda:Get*`, `*`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKey:
    """A key that calls of Lambda's API are signed with."""

    id: str
    secret: str = field(repr=False)
    account: str
    """12 digits: the name space its caller sees."""
    allow: tuple[str, ...] = ("lambda:*",)
    """Actions and patterns of actions."""
    organization: str = ""
    """Id of the organization that its account belongs to, `o-…`; empty: none."""
    token: str = field(default="", repr=False)
    """Session token that must come with it; empty: none."""
    role: str = ""
    """ARN of the execution role whose rights it has, instead of `allow`; empty: its own."""
    session: str = ""
    """Of such a key: the function's name."""
    expires_at: float = math.inf
    """Epoch seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, once that is known."""

    account: str
    """Whose name space is meant: the caller's own, or that of the function that a call names."""
    region: str
    key_id: str = ""
    """Empty: nobody was asked."""
    allow: tuple[str, ...] = ("*",)
    organization: str = ""
    home: Space | None = None
    """The file's name space; None: the caller's."""
    role: Role | None = None
    """Of a function that calls with its own credentials: what it may do, instead of `allow`."""
    session: str = ""
    """Likewise: its name."""
    foreign: str = ""
    """The account of whoever signed, where that is another one than the function's; empty: it is the same."""

    @property
    def signer(self) -> str:
        """The account of whoever signed."""
        return self.foreign or self.account

    @property
    def space(self) -> Space:
        """The name space that is meant."""
        return Space(self.account, self.region)

    def key(self, name: str) -> str:
        """Return what a function of the caller's name space is called where those of all are."""
        home = self.home
        if home is None or (self.account == home.account and self.region == home.region):
            return name
        return self.space.key(name, home=home)

    def owns(self, name: str) -> bool:
        """Tell whether a function of that name (`key`) is one of the caller's name space."""
        return space_name(name) == self._space_name

    def own(self, functions: Iterable[Function]) -> list[Function]:
        """Return those of the caller's name space."""
        wanted = self._space_name
        return [each for each in functions if space_name(each.name) == wanted]

    @property
    def _space_name(self) -> str:
        return space_name(self.key(""))

    @property
    def arn(self) -> str:
        """The principal, as errors and policies write it."""
        if self.role is not None:
            return f"arn:aws:sts::{self.role.account}:assumed-role/{self.role.name}/{self.session}"
        return f"arn:aws:iam::{self.signer}:user/{self.key_id or 'anonymous'}"

    def may(self, action: str, resource: str = "*") -> bool:
        """Tell whether an action (`lambda:InvokeFunction`) is allowed; AWS compares without regard to case.

        Args:
            action: it.
            resource: the ARN it is on, which a role's statements may ask for; `*`: none in particular.
        """
        if self.role is not None:
            return self.role.allows(action, resource)
        return any(_pattern(pattern).match(action) for pattern in self.allow)


def with_token(key: AccessKey | None, headers: Mapping[str, Sequence[str]]) -> AccessKey:
    """Return a key whose token came with it, if it has one; `headers` by lower-case name.

    Raises:
        SignatureRefused: there is no such key, or another token.
    """
    sent = next(iter(headers.get("x-amz-security-token", ())), "")
    if key is None or (key.token and not hmac.compare_digest(key.token.encode(), sent.encode("utf-8", "replace"))):
        raise SignatureRefused("UnrecognizedClientException", UNKNOWN_CALLER)
    return key


@lru_cache(maxsize=256)
def _pattern(text: str) -> re.Pattern[str]:
    parts = (".*" if char == "*" else "." if char == "?" else re.escape(char) for char in text)
    return re.compile("".join(parts) + r"\Z", re.IGNORECASE)

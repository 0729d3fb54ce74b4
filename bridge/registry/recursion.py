"""Functions that call themselves through each other: how often each was in what led to an invocation, and which may.

A running function has the chain in its trace header (`Lineage`); AWS's clients send that header with what they call.
"""

import hashlib
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from bridge.core import limits
from bridge.core.errors import RecursiveInvocation
from bridge.core.function import plain_name
from bridge.registry.attached import Documents, DocumentStore
from bridge.util import telemetry

ALLOW: Final = "Allow"
TERMINATE: Final = "Terminate"
CHAINS_MAX: Final = 10_000
"""Events whose chain is remembered between their acceptance and their last attempt; the oldest are forgotten first."""
_MEMBERS_MAX: Final = 32
"""Functions of one chain."""
_LINEAGE: Final = re.compile(r"(?:^|;)\s*Lineage=([0-9a-f:|]{1,1000})(?:;|$)")
_MEMBER: Final = re.compile(r"(?:[0-9]{1,3}:)?([0-9a-f]{8}):([0-9]{1,4})\Z")
"""AWS's own have a number before them."""
_HEADER_MAX_CHARS: Final = 4096


class Recursion:
    """What loops there are. A change is durable before it counts.

    Args:
        store: which functions may.
        arn_of: returns the unqualified ARN of a function's name.
    """

    def __init__(self, store: DocumentStore, *, arn_of: Callable[[str], str]) -> None:
        self.modes = Documents(store)
        """By function: those that may."""
        self._arn_of = arn_of
        self._chains: OrderedDict[str, Counter[str]] = OrderedDict()

    async def open(self) -> None:
        """Load what was kept. Raises StoreError."""
        await self.modes.open()

    def mode(self, name: str) -> str:
        """Return RecursiveLoop of a function: Allow or Terminate."""
        kept = self.modes.get((self._arn_of(name), ""))
        return TERMINATE if kept is None else str(kept["mode"])

    async def set_mode(self, name: str, mode: str) -> None:
        """Let a function call itself, or no more. Raises StoreError."""
        await self.modes.set((self._arn_of(name), ""), {"mode": mode} if mode == ALLOW else None)

    async def forget(self, function: str, qualifier: str | None) -> None:
        """Forget what was said of a function that is gone, by its ARN; versions and aliases have nothing."""
        await self.modes.forget(function, qualifier)

    # --- chains ---------------------------------------------------------------------------------------------------

    def allows(self, name: str) -> bool:
        """Tell whether a function may be in a loop. See core.loops.Loops, also of what follows."""
        return self.mode(name) == ALLOW

    def why_stopped(self, name: str, header: str) -> str:
        """Say why a function may not run for what came with a header; empty: it may."""
        return self._why(name, _chain(header)) if header else ""

    def _why(self, name: str, chain: Counter[str]) -> str:
        if (times := chain[_key(name)]) < limits.RECURSION_MAX or self.allows(name):
            return ""
        return (
            "Lambda has detected the function being invoked in a recursive loop with other functions and resources "
            f"and stopped it: {plain_name(name)} was invoked {times} times in this chain "
            "(PutFunctionRecursionConfig with RecursiveLoop = Allow lets it go on)"
        )

    def admit(self, request_id: str, name: str, header: str) -> None:
        """Take note of the chain that led to an invocation.

        Args:
            request_id: of the invocation.
            name: of its function.
            header: X-Amzn-Trace-Id as the caller sent it; empty: it sent none.

        Raises:
            RecursiveInvocation: the function was in the chain RECURSION_MAX times, and may not.
        """
        chain = _chain(header) if header else None
        if not chain:
            return
        if why := self._why(name, chain):
            telemetry.RECURSIONS_DROPPED.labels(function=name).inc()
            raise RecursiveInvocation(why)
        self._remember(request_id, chain)

    def follow(self, request_id: str, headers: Iterable[str]) -> None:
        """Take note of the chains that led to a batch: of each function the highest count."""
        chain: Counter[str] = Counter()
        for header in headers:
            if header:
                chain |= _chain(header)
        if chain:
            self._remember(request_id, Counter(dict(chain.most_common(_MEMBERS_MAX))))

    def leave(self, request_id: str) -> None:
        """Forget the chain of an invocation that sends nothing on any more."""
        self._chains.pop(request_id, None)

    def _remember(self, request_id: str, chain: Counter[str]) -> None:
        self._chains[request_id] = chain
        while len(self._chains) > CHAINS_MAX:
            self._chains.popitem(last=False)

    def trace(self, request_id: str, name: str, *, now: float) -> str:
        """Return the trace header that a function sees: with the chain, itself included."""
        chain, key = self._chains.get(request_id), _key(name)
        members = f"{key}:1"
        if chain is not None:  # itself first: of a chain that is too long the end is cut
            others = (f"{member}:{count}" for member, count in chain.items() if member != key)
            members = "|".join((f"{key}:{chain[key] + 1}", *others))
        digits = request_id.replace("-", "")
        return f"Root=1-{int(now):08x}-{digits[:24]};Parent={digits[-16:]};Sampled=0;Lineage={members}"


def _chain(header: str) -> Counter[str]:
    # botocore writes the bars as %7C, and what stores the header leaves them so.
    found = _LINEAGE.search(unquote(header[:_HEADER_MAX_CHARS]))
    members = [] if found is None else found[1].split("|")[:_MEMBERS_MAX]
    return Counter({each[1]: int(each[2]) for each in map(_MEMBER.match, members) if each is not None})


@lru_cache(maxsize=4096)
def _key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:8]

"""Short-lived access keys that we mint for functions: each acts with the rights of its function's execution role."""

import base64
import secrets
from typing import Final

from bridge.core.ports import Clock
from bridge.registry.access import AccessKey

KEY_LIFE_S: Final = 3600.0
"""As long as STS lets a role's credentials live by default."""
RENEWED_AHEAD_S: Final = 1200.0
"""A key is replaced so long before its end: the longest invocation, 900 s, ends with the key that it began with."""


class MintedKeys:
    """Keys by id, in memory alone: those of a daemon that ended are nobody's.

    Args:
        clock: the daemon's.
    """

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._current: dict[tuple[str, str, str], AccessKey] = {}
        """By the ARN of the role, the account and the function's name."""
        self._keys: dict[str, AccessKey] = {}

    def current(self, role: str, *, account: str, session: str) -> AccessKey:
        """Return the key of a function under a role, another one where the last is due.

        Args:
            role: its ARN.
            account: whose name space its caller sees.
            session: the function's name.
        """
        now = self._clock.stepped()
        known = self._current.get((role, account, session))
        if known is None or now >= due_at(known):
            self._forget_expired(now)
            known = AccessKey(
                id="ASIA" + base64.b32encode(secrets.token_bytes(10)).decode(),
                secret=secrets.token_urlsafe(30),
                token=secrets.token_urlsafe(48),
                account=account,
                allow=(),
                role=role,
                session=session,
                expires_at=now + KEY_LIFE_S,
            )
            self._current[role, account, session] = self._keys[known.id] = known
        return known

    def get(self, key_id: str) -> AccessKey | None:
        """Return a key that has not expired; None: there is none of that id."""
        found = self._keys.get(key_id)
        return None if found is None or self._clock.stepped() >= found.expires_at else found

    def _forget_expired(self, now: float) -> None:
        self._current = {name: key for name, key in self._current.items() if now < key.expires_at}
        self._keys = {key_id: key for key_id, key in self._keys.items() if now < key.expires_at}


def due_at(key: AccessKey) -> float:
    """Return from when on a key is replaced, epoch seconds."""
    return key.expires_at - RENEWED_AHEAD_S

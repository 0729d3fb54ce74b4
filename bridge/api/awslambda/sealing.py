"""The variables of versions that Lambda's API made, sealed where they lie: by the key file, or by a key of AWS KMS.

What KMS has unwrapped is kept in memory, and asked for again from time to time: a key that was disabled meanwhile ends
the function's invocations within KMS_ASKED_S, and one that is there again lets them go on within KMS_REFUSED_S.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import orjson
import structlog

from bridge.core.errors import KeyRefused, SealBroken
from bridge.core.ports import Clock
from bridge.registry.made import MadeFunction, MadeVersion
from bridge.registry.rotation import ArnOf, binding
from bridge.registry.secrets import Binding, DataKey, Seal, kms_key, wrapped_key

log = structlog.get_logger("bridge.lambda")

KMS_ASKED_S: Final = 300.0
"""How long what KMS unwrapped counts, until it is asked again."""
KMS_REFUSED_S: Final = 60.0
"""How soon KMS is asked again after a refusal."""
KMS_START_MAX_S: Final = 30.0
"""How long a start waits for KMS, all functions together; what is missing then is asked for later."""
_AT_ONCE: Final = 8


class KeyService(Protocol):
    """AWS KMS."""

    async def generate(self, key: str, context: Mapping[str, str]) -> tuple[bytes, bytes, str]:
        """Return a new data key of 256 bits, the same wrapped, and the ARN of the key that did. Raises KeyRefused."""
        ...

    async def decrypt(self, key: str, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Return a data key unwrapped. Raises KeyRefused."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What KMS said of a value's own key."""

    own: bytes | None = field(default=None, repr=False)
    refusal: KeyRefused | None = None
    at: float
    """Monotonic seconds."""


class Sealing:
    """Seals and opens variables by function and version.

    Args:
        seal: over the key file.
        arn_of: names what values are bound to.
        clock: the daemon's.
        kms: where `KMSKeyArn` leads; None: nowhere.
    """

    def __init__(self, seal: Seal, *, arn_of: ArnOf, clock: Clock, kms: KeyService | None = None) -> None:
        self.seal = seal
        self.arn_of = arn_of
        self._clock = clock
        self._kms = kms
        self._asked: dict[bytes, _Asked] = {}
        """By the wrapped key."""
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def close(self, name: str, version: str, variables: Mapping[str, str], *, key: str = "") -> str:
        """Return variables sealed for a version; none are the empty text.

        Args:
            name: the function's.
            version: its number or `$LATEST`.
            variables: all of them.
            key: KMSKeyArn; empty: the key file's seals. One of KMS is asked even where there is nothing to seal.

        Raises:
            SealBroken: there is no usable key.
        """
        bound, data_key = binding(self.arn_of(name), version), None
        if key:
            plain, wrapped, by = await self._service().generate(key, bound.context())
            data_key = DataKey(plain=plain, wrapped=wrapped, key=by)
        if not variables:
            return ""
        sealed = await asyncio.to_thread(self.seal.close, orjson.dumps(variables), bound_to=bound, data_key=data_key)
        if data_key is not None:
            self._asked[data_key.wrapped] = _Asked(own=data_key.plain, at=self._clock.monotonic())
        return sealed

    def open(self, name: str, version: MadeVersion) -> Mapping[str, str]:
        """Return a version's variables; blocking once, when the key file is read.

        Raises:
            SealBroken: the key is missing or another one; KeyRefused: KMS has said no, or was not there.
        """
        if not version.environment:
            return {}
        own = None
        if key := kms_key(version.environment):
            asked = self._asked.get(wrapped_key(version.environment))
            if asked is None:
                text = f"Lambda was unable to decrypt the environment variables: KMS has not been asked for {key} yet."
                raise KeyRefused(text, code="KMSInvalidStateException", is_lasting=False)
            if asked.refusal is not None:
                raise KeyRefused(str(asked.refusal), code=asked.refusal.code)
            own = asked.own
        opened = self.seal.open(version.environment, bound_to=binding(self.arn_of(name), version.version), own=own)
        found: Mapping[str, str] = orjson.loads(opened)
        return found

    async def ask_at_start(self, functions: Iterable[MadeFunction]) -> None:
        """Ask KMS for what it wraps, no longer than KMS_START_MAX_S."""
        try:
            async with asyncio.timeout(KMS_START_MAX_S):
                await self.ask(functions)
        except TimeoutError:
            log.warning("kms_slow", reason="some variables are opened later")

    async def ask(self, functions: Iterable[MadeFunction]) -> set[str]:
        """Ask KMS for what it wraps where that is due; returns the functions for which its word has changed, by key."""
        now, due, known = self._clock.monotonic(), [], set()
        for made, version in _by_kms(functions):
            wrapped = wrapped_key(version.environment)
            known.add(wrapped)
            asked = self._asked.get(wrapped)
            if asked is None or now - asked.at >= (KMS_ASKED_S if asked.refusal is None else KMS_REFUSED_S):
                due.append((made, version, wrapped))
        changed = await asyncio.gather(*(self._ask(*each) for each in due))
        self._asked = {
            key: asked for key, asked in self._asked.items() if key in known or asked.at >= now - KMS_REFUSED_S
        }
        return {made.key for (made, *_), is_changed in zip(due, changed, strict=True) if is_changed}

    async def _ask(self, made: MadeFunction, version: MadeVersion, wrapped: bytes) -> bool:
        bound: Binding = binding(self.arn_of(made.name), version.version)
        before = self._asked.get(wrapped)
        try:
            async with self._turns:
                own = await self._service().decrypt(kms_key(version.environment), wrapped, bound.context())
        except KeyRefused as error:
            now = self._clock.monotonic()
            if before is not None and before.own is not None and not error.is_lasting:
                self._asked[wrapped] = _Asked(own=before.own, at=now)  # it is only out of reach
                return False
            self._asked[wrapped] = _Asked(refusal=error, at=now)
            is_news = before is None or before.refusal is None or before.refusal.code != error.code
            if is_news:
                log.warning(
                    "kms_refused", function=made.name, version=version.version, code=error.code, error=str(error)
                )
            return is_news
        self._asked[wrapped] = _Asked(own=own, at=self._clock.monotonic())
        return before is None or before.refusal is not None

    def _service(self) -> KeyService:
        if self._kms is None:
            raise KeyRefused("there is no way to KMS here", code="KMSNotFoundException")
        return self._kms


def _by_kms(functions: Iterable[MadeFunction]) -> Iterator[tuple[MadeFunction, MadeVersion]]:
    for made in functions:
        for version in made.all_versions():
            if version.environment and kms_key(version.environment):
                try:
                    wrapped_key(version.environment)
                except SealBroken:
                    continue  # damaged: `open` says so
                yield made, version

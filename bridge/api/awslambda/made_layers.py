"""The layers that Lambda's API makes: kept durably, found by name or ARN, and what a function may use of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from bridge.api.awslambda.errors import Refused, invalid
from bridge.api.awslambda.names import denied
from bridge.registry.access import Caller
from bridge.registry.layers import GET_ACTION, LAYERS_MAX, LayerName, LayerVersion, read_version_arn

ARN_PATTERN: Final = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:layer:"
    r"[a-zA-Z0-9-_]+:[0-9]+)|(arn:[a-zA-Z0-9-]+:lambda:::awslayer:[a-zA-Z0-9-_]+)"
)
"""AWS's own, as its errors show it (API_GetLayerVersionByArn)."""


class LayerStore(Protocol):
    """Keeps versions of layers; what writes is durable when it returns. Raises StoreError."""

    async def load(self) -> tuple[list[LayerVersion], dict[LayerName, int]]:
        """Return all versions, and the last number of every layer there ever was."""
        ...

    async def save(self, version: LayerVersion) -> None:
        """Keep a version as it is now."""
        ...

    async def delete(self, version: LayerVersion) -> None:
        """Forget a version; one that is not there is fine."""
        ...


class MadeLayers:
    """Layers by name, in every account and region. Whoever changes them holds `MadeFunctions.changing`.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: LayerStore) -> None:
        self._store = store
        self._versions: dict[LayerName, dict[int, LayerVersion]] = {}
        self._numbers: dict[LayerName, int] = {}

    async def open(self) -> None:
        """Load everything.

        Raises:
            StoreError: what was kept cannot be read.
        """
        versions, self._numbers = await self._store.load()
        for version in sorted(versions, key=lambda each: each.version):
            self._versions.setdefault(version.layer, {})[version.version] = version

    # --- looking ------------------------------------------------------------------------------------------------

    def packages(self) -> frozenset[str]:
        """Return the keys of all packages that versions name."""
        return frozenset(version.package for found in self._versions.values() for version in found.values())

    def names(self, account: str, region: str) -> list[LayerName]:
        """Return the layers of a name space that have a version."""
        return [layer for layer in self._versions if (layer.account, layer.region) == (account, region)]

    def versions(self, layer: LayerName) -> Sequence[LayerVersion]:
        """Return the versions of a layer that were not deleted, in order."""
        return tuple(self._versions.get(layer, {}).values())

    def find(self, layer: LayerName, version: int) -> LayerVersion | None:
        """Return a version; None: there is none, or no more."""
        return self._versions.get(layer, {}).get(version)

    def count(self) -> int:
        """Return how many versions there are, in all name spaces."""
        return sum(map(len, self._versions.values()))

    def total_size(self, account: str, region: str) -> int:
        """Return the bytes of all versions' zips in a name space."""
        return sum(each.code_size for layer in self.names(account, region) for each in self.versions(layer))

    # --- changing -----------------------------------------------------------------------------------------------

    def next_number(self, layer: LayerName) -> int:
        """Return the number of the version that is published next: none is ever given again."""
        return self._numbers.get(layer, 0) + 1

    async def put(self, version: LayerVersion) -> None:
        """Keep a version that is new, or whose policy has changed."""
        await self._store.save(version)
        self._versions.setdefault(version.layer, {})[version.version] = version
        self._numbers[version.layer] = max(version.version, self._numbers.get(version.layer, 0))

    async def delete(self, version: LayerVersion) -> None:
        """Forget a version; functions that have it keep its files."""
        await self._store.delete(version)
        del self._versions[version.layer][version.version]
        if not self._versions[version.layer]:
            del self._versions[version.layer]

    def clear(self) -> None:
        """Forget all, with their numbers: the store has."""
        self._versions, self._numbers = {}, {}

    # --- of functions -------------------------------------------------------------------------------------------

    def resolve(self, arns: Sequence[str], caller: Caller) -> list[LayerVersion]:
        """Return the versions that a function of the caller's is to have, in order.

        Raises:
            Refused: too many, one twice, one that is not there or that the caller may not use (semantics 5.5).
        """
        if len(arns) > LAYERS_MAX:
            raise invalid(f"Cannot reference more than {LAYERS_MAX} layers.")
        found: dict[LayerName, LayerVersion] = {}
        for arn in arns:
            version = self._usable(arn, caller)
            if (other := found.get(version.layer)) is not None:
                raise invalid(
                    "Two different versions of the same layer are not allowed to be referenced in the same function. "
                    f"{other.arn} and {arn} are versions of the same layer."
                )
            found[version.layer] = version
        return list(found.values())

    def _usable(self, arn: str, caller: Caller) -> LayerVersion:
        named = read_version_arn(arn)
        if named is None:
            raise Refused(
                "ValidationException",
                f"1 validation error detected: Value '[{arn[:200]}]' at 'layers' failed to satisfy constraint: Member "
                "must satisfy constraint: [Member must have length less than or equal to 2048, Member must have length "
                "greater than or equal to 1, Member must satisfy regular expression pattern: "
                f"{ARN_PATTERN}, Member must not be null]",
                kind="",
            )
        layer, number = named
        version = self.find(layer, number)
        if layer.account != caller.account:
            if version is None or layer.region != caller.region or not version.is_open_to(caller):
                raise not_shared(caller, arn)
            return version
        if layer.region != caller.region:
            raise invalid(
                "Layers are not in the same region as the function. "
                f"Layers are expected to be in region {caller.region}."
            )
        if version is None:
            raise invalid(f"Layer version {arn} does not exist.")
        return version


def not_shared(caller: Caller, arn: str) -> Refused:
    """Return the refusal of another account's layer version: not there, or its policy does not name the caller."""
    return denied(caller, GET_ACTION, arn, kind="resource")


def shown_layers(versions: Sequence[LayerVersion]) -> list[Mapping[str, Any]]:
    """Return Layers of FunctionConfiguration."""
    return [{"Arn": version.arn, "CodeSize": version.code_size} for version in versions]

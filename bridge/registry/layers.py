"""Layers that Lambda's API made: their versions, who else may use them, and what is kept of them (pure)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from bridge.registry.access import Caller
from bridge.registry.packages import code_sha256
from bridge.registry.statements import policy_document
from bridge.registry.stored import restored

LAYERS_MAX: Final = 5
"""Of one function (gettingstarted-limits.html)."""
NAME_MAX_CHARS: Final = 140
GET_ACTION: Final = "lambda:GetLayerVersion"
"""The one action that a policy of a layer version allows."""
_REGION: Final = r"(?:eusc-)?[a-z]{2}(?:(?:-gov)|(?:-iso(?:[a-z]?)))?-[a-z]+-\d{1}"
_ARN: Final = re.compile(
    rf"arn:(?:aws[a-zA-Z-]*)?:lambda:(?P<region>{_REGION}):(?P<account>\d{{12}}):layer:(?P<name>[a-zA-Z0-9_-]+)"
    r"(?::(?P<version>[0-9]{1,18}))?\Z",
    re.ASCII,
)
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]+\Z")


class LayerName(NamedTuple):
    """A layer in its name space."""

    account: str
    region: str
    name: str

    @property
    def arn(self) -> str:
        """LayerArn."""
        return f"arn:aws:lambda:{self.region}:{self.account}:layer:{self.name}"

    def version_arn(self, version: int) -> str:
        """LayerVersionArn."""
        return f"{self.arn}:{version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStatement:
    """What lets others use a layer version."""

    principal: str
    """An account, the ARN of its root, or `*`, as written."""
    organization: str = ""
    """Only callers of it; empty: of any, or none."""

    def allows(self, caller: Caller) -> bool:
        """Tell whether a caller may."""
        is_member = not self.organization or self.organization == caller.organization
        return is_member and self.principal in ("*", caller.account, f"arn:aws:iam::{caller.account}:root")

    def document(self, sid: str, arn: str) -> dict[str, Any]:
        """Return the statement as policies write it; `arn` is the layer version's."""
        principal: Any = self.principal
        if principal != "*":
            principal = {"AWS": f"arn:aws:iam::{principal}:root" if principal.isdecimal() else principal}
        shown = {"Sid": sid, "Effect": "Allow", "Principal": principal, "Action": GET_ACTION, "Resource": arn}
        if self.organization:
            shown["Condition"] = {"StringEquals": {"aws:PrincipalOrgID": self.organization}}
        return shown


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerVersion:
    """One version of a layer, which never changes but for its policy."""

    layer: LayerName
    version: int
    package: str
    """Key in the package store: SHA-256 of the zip, hexadecimal."""
    code_size: int
    """Bytes of the zip."""
    created_at: str
    """ISO 8601 with milliseconds, as AWS writes it."""
    description: str = ""
    license_info: str | None = None
    runtimes: Sequence[str] | None = None
    """CompatibleRuntimes; None: none were named."""
    architectures: Sequence[str] | None = None
    statements: Mapping[str, LayerStatement] = field(default_factory=dict)
    """By statement id."""
    policy_revision: str = ""
    """RevisionId of the policy."""

    @property
    def arn(self) -> str:
        """LayerVersionArn."""
        return self.layer.version_arn(self.version)

    @property
    def code_sha256(self) -> str:
        """CodeSha256."""
        return code_sha256(self.package)

    def is_open_to(self, caller: Caller) -> bool:
        """Tell whether a caller may use it: one of its account, or one that its policy names."""
        return caller.account == self.layer.account or any(each.allows(caller) for each in self.statements.values())

    def policy(self) -> str:
        """Return the JSON text of the whole policy."""
        return policy_document([statement.document(sid, self.arn) for sid, statement in self.statements.items()])

    def suits(self, *, runtime: str | None, architecture: str | None) -> bool:
        """Tell whether it names a runtime and an architecture, where they are asked for."""
        return (runtime is None or runtime in (self.runtimes or ())) and (
            architecture is None or architecture in (self.architectures or ())
        )


def read_layer(text: str, *, account: str, region: str) -> LayerName | None:
    """Return the layer that a name or an ARN without version names; None: it is neither."""
    if len(text) > NAME_MAX_CHARS:
        return None
    if _NAME.match(text):
        return LayerName(account, region, text)
    found = _ARN.match(text)
    if found is None or found["version"] is not None:
        return None
    return LayerName(found["account"], found["region"], found["name"])


def read_version_arn(text: str) -> tuple[LayerName, int] | None:
    """Return the layer and the version that an ARN names; None: it is no LayerVersionArn."""
    found = _ARN.match(text)
    if found is None or found["version"] is None:
        return None
    return LayerName(found["account"], found["region"], found["name"]), int(found["version"])


def pack_layer(version: LayerVersion) -> bytes:
    """Return what is kept of a version beside its name, as JSON."""
    facts = asdict(version)
    del facts["layer"], facts["version"]
    return orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)


def unpack_layer(layer: LayerName, version: int, document: bytes) -> LayerVersion:
    """Return the version of stored facts.

    Raises:
        ValueError, KeyError, StoreCorrupt: they are not what `pack_layer` made.
        StoreTooNew: a newer version made them.
    """
    facts = orjson.loads(document)
    what = f"version {version} of the layer {layer.arn}"
    kept = facts.pop("statements")
    statements = {sid: restored(LayerStatement, each, what=f"a statement of {what}") for sid, each in kept.items()}
    return restored(LayerVersion, facts, what=what, layer=layer, version=version, statements=statements)

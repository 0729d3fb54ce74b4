"""`layers` of `[functions.X]`: ARNs of layer versions, folders and zips, in the order in which they are merged."""

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

from pydantic import PlainValidator, ValidationInfo, WithJsonSchema

from bridge.config.files import beside, reason
from bridge.config.mistakes import Loc
from bridge.config.tree import tables, text
from bridge.config.values import refuse, surroundings
from bridge.core.function import REGION_DEFAULT
from bridge.registry.layers import read_version_arn

_ARN: Final = "arn:"


def _layer(value: Any, info: ValidationInfo) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        refuse("must be the ARN of a layer version, or the path of a folder or a zip")
    if value.startswith(_ARN):
        if read_version_arn(value) is None:
            refuse("must be a layer version's ARN, arn:aws:lambda:REGION:ACCOUNT:layer:NAME:VERSION, or a path")
        return str(value)
    return str(beside(surroundings(info).folder, value))


LayerValue: TypeAlias = Annotated[str, PlainValidator(_layer), WithJsonSchema({"type": "string"})]


def mistakes(data: Mapping[str, Any], folder: Path) -> Iterator[tuple[Loc, str]]:
    """Yield layers that cannot be what they say: no such path, another region, one layer twice."""
    region = text(data, "region", REGION_DEFAULT)
    for name, function in tables(data, "functions"):
        written = function.get("layers")
        known: set[object] = set()
        for index, each in enumerate(written if isinstance(written, list) else ()):
            if not isinstance(each, str) or not each or "\0" in each:
                continue  # told by the section
            found = read_version_arn(each)
            if found is None and each.startswith(_ARN):
                continue
            layer: object = beside(folder, each) if found is None else found[0]
            loc = ("functions", name, "layers", index)
            if found is not None and found[0].region != region:
                yield loc, f"is a layer of another region; functions of this file are in {region}"
            elif found is None and (fault := _fault(beside(folder, each))):
                yield loc, fault
            if layer in known:
                yield loc, "is there twice" if found is None else f"names the layer {found[0].name} once more"
            known.add(layer)


def _fault(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return f"no such folder or zip: {path}" if str(path).isprintable() else f"no such folder or zip: {path!a}"
    except OSError as error:
        return reason(error)
    return "" if stat.S_ISDIR(mode) or stat.S_ISREG(mode) else "is neither a folder nor a file"

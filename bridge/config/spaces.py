"""Functions that sources and mappings name by ARN, called as they are where those of all name spaces are."""

import re
from collections.abc import Mapping
from typing import Any, Final

from bridge.config.tree import tables, text
from bridge.core.function import ACCOUNT_DEFAULT, REGION_DEFAULT
from bridge.core.spaces import Space

_ARN: Final = re.compile(
    r"arn:aws[a-z-]*:lambda:[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2}:[0-9]{12}:function:"
    r"[a-zA-Z0-9_-]{1,64}(?::[a-zA-Z0-9$_-]{1,128})?\Z"
)


def placed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of a file with such ARNs replaced; what is no function's ARN stays, for the mistakes.

    An ARN of a function that the file declares, here or elsewhere, becomes its name there.
    """
    home = Space(text(data, "account", ACCOUNT_DEFAULT), text(data, "region", REGION_DEFAULT))
    elsewhere = {text(function, "arn"): name for name, function in tables(data, "functions")}
    found = dict(data)
    for group in ("sources", "mappings"):
        if isinstance(known := data.get(group), dict):
            found[group] = {name: _placed(asking, home, elsewhere) for name, asking in known.items()}
    return found


def _placed(asking: Any, home: Space, elsewhere: Mapping[str, str]) -> Any:
    target = asking.get("function") if isinstance(asking, dict) else None
    if not isinstance(target, str) or not _ARN.match(target):
        return asking
    return {**asking, "function": elsewhere.get(target) or home.called(target)}

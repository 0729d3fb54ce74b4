"""Cross-origin requests to function URLs: answers to preflights, and the headers of all others (pure).

docs.aws.amazon.com/lambda/latest/dg/urls-configuration.html#urls-cors: what is configured replaces what the function
returns. Names are those of API_Cors.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

Headers = tuple[tuple[bytes, bytes], ...]

_PREFIX: Final = b"access-control-"
_ANY: Final = "*"


def is_preflight(method: str, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Tell whether a request asks what a page may send."""
    names = {name for name, _ in headers}
    return method == "OPTIONS" and {b"origin", b"access-control-request-method"} <= names


def preflight_headers(cors: Mapping[str, Any], headers: Sequence[tuple[bytes, bytes]]) -> Headers:
    """Return what a preflight is answered: nothing for an origin that is not allowed."""
    if not (allowed := _allowed(cors, headers)):
        return ()
    told = (
        (b"allow-methods", ",".join(cors.get("AllowMethods") or ())),
        (b"allow-headers", ",".join(cors.get("AllowHeaders") or ())),
        (b"max-age", str(cors["MaxAge"]) if "MaxAge" in cors else ""),
    )
    return (*allowed, *((_PREFIX + name, value.encode("ascii")) for name, value in told if value))


def answer_headers(cors: Mapping[str, Any], headers: Sequence[tuple[bytes, bytes]], answer: Headers) -> Headers:
    """Return an answer's headers: the function's own of this kind are gone, the configured ones there."""
    kept = tuple(header for header in answer if not header[0].startswith(_PREFIX))
    allowed = _allowed(cors, headers)
    exposed = ",".join(cors.get("ExposeHeaders") or ())
    if allowed and exposed:
        allowed += ((_PREFIX + b"expose-headers", exposed.encode("ascii")),)
    return kept + allowed


def _allowed(cors: Mapping[str, Any], headers: Sequence[tuple[bytes, bytes]]) -> Headers:
    origin = next((value for name, value in headers if name == b"origin"), b"")
    origins = cors.get("AllowOrigins") or ()
    is_any = _ANY in origins
    if not origin or not (is_any or origin.decode("latin-1") in origins):
        return ()
    has_credentials = bool(cors.get("AllowCredentials"))
    if is_any and not has_credentials:
        return ((_PREFIX + b"allow-origin", b"*"),)
    found = ((_PREFIX + b"allow-origin", origin), (b"vary", b"Origin"))
    return (*found, (_PREFIX + b"allow-credentials", b"true")) if has_credentials else found

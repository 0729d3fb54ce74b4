"""Checks AWS Signature Version 4 on a request: who signed it, when, and for which region (pure).

docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. Only the Authorization header is
read; a query that carries the signature (a presigned URL) is refused by name. Every error has AWS's code, status and
words (docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html).
"""

import datetime as dt
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

ALGORITHM: Final = "AWS4-HMAC-SHA256"
WINDOW_S: Final = 300
"""Seconds, past or future, that the signed time may be from now."""
SIGNED_HEADERS_MAX: Final = 100
_STAMP: Final = "%Y%m%dT%H%M%SZ"
_STAMP_PATTERN: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z\Z")
_PART: Final = re.compile(r"\s*(Credential|SignedHeaders|Signature)\s*=\s*([^\s,]*)\s*\Z")
_UNRESERVED: Final = "-_.~"
_SPACES: Final = re.compile(r" +")
_PLAIN_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)+\Z")
"""A path that its canonical form leaves as it is."""
UNKNOWN_CALLER: Final = "The security token included in the request is invalid."
_MISMATCH: Final = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)


class SignatureRefused(Exception):
    """The request is not signed, or not by whom it says; its text is AWS's."""

    def __init__(self, code: str, text: str, *, status: int = 403) -> None:
        super().__init__(text)
        self.code = code
        self.status = status


class SignedRequest(NamedTuple):
    """What a signature covers, as it was received: nothing decoded."""

    method: str
    path: str
    """Percent-encoded as sent, without the query."""
    query: str
    headers: Mapping[str, Sequence[str]]
    """By lower-case name."""
    body_hash: str
    """SHA-256 of the body, lower-case hexadecimal."""


class Signer(NamedTuple):
    """Who signed, and for which region."""

    key_id: str
    region: str


class _Claim(NamedTuple):
    key_id: str
    date: str
    region: str
    service: str
    signed: tuple[str, ...]
    signature: str


def is_signed(headers: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether the request claims to be signed this way."""
    return any(value.lstrip().startswith("AWS4-") for value in headers.get("authorization", ()))


def claimed_signer(headers: Mapping[str, Sequence[str]]) -> Signer | None:
    """Return whom a request names as its signer, unchecked; None where it names nobody that can be read."""
    try:
        claim = _claim(headers)
    except SignatureRefused:
        return None
    return Signer(claim.key_id, claim.region)


def check_signature(
    request: SignedRequest, *, secret_of: Callable[[str], str | None], now: float, service: str = "lambda"
) -> Signer:
    """Return who signed.

    Args:
        request: the request, whole.
        secret_of: returns the secret of a key id; None when there is no such key.
        now: wall clock, epoch seconds.
        service: what it must be signed for.

    Raises:
        SignatureRefused: MissingAuthenticationTokenException, IncompleteSignatureException,
            UnrecognizedClientException or InvalidSignatureException.
    """
    claim = _claim(request.headers)
    stamp = _stamp(request.headers)
    _check_scope(claim, stamp, service)
    secret = secret_of(claim.key_id)
    if secret is None:
        raise SignatureRefused("UnrecognizedClientException", UNKNOWN_CALLER)
    _check_time(stamp, now)
    _check_body(request)
    text = "\n".join((
        ALGORITHM, stamp, f"{claim.date}/{claim.region}/{claim.service}/aws4_request",
        hashlib.sha256(canonical_request(request, claim.signed).encode("utf-8", "surrogateescape")).hexdigest(),
    ))  # fmt: skip
    wanted = hmac.new(
        signing_key(secret, claim.date, claim.region, claim.service), text.encode(), hashlib.sha256
    ).hexdigest()
    if not hmac.compare_digest(wanted.encode(), claim.signature.encode("utf-8", "replace")):
        raise SignatureRefused("InvalidSignatureException", _MISMATCH)
    return Signer(claim.key_id, claim.region)


@lru_cache(maxsize=256)
def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """Return the key of one day, region and service (kept for some: the same one serves all requests of a day)."""
    key = ("AWS4" + secret).encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def canonical_request(request: SignedRequest, signed: Sequence[str]) -> str:
    """Return the canonical form of what is signed: path and query encoded once more, header values trimmed."""
    headers = "".join(f"{name}:{_value(request.headers.get(name, ()))}\n" for name in signed)
    return "\n".join((
        request.method, _canonical_path(request.path), _canonical_query(request.query), headers,
        ";".join(signed), request.body_hash,
    ))  # fmt: skip


def _claim(headers: Mapping[str, Sequence[str]]) -> _Claim:
    given = headers.get("authorization", ())
    if not given:
        raise SignatureRefused("MissingAuthenticationTokenException", "Missing Authentication Token")
    algorithm, _, rest = given[0].strip().partition(" ")
    if len(given) > 1 or algorithm != ALGORITHM:
        raise SignatureRefused(
            "IncompleteSignatureException",
            f"Unsupported AWS 'algorithm': '{algorithm[:40]}', expected {ALGORITHM} in one Authorization header.",
            status=400,
        )
    parts = {found[1]: found[2] for part in rest.split(",") if (found := _PART.match(part)) is not None}
    missing = [name for name in ("Credential", "SignedHeaders", "Signature") if not parts.get(name)]
    if missing:
        text = "".join(f"Authorization header requires '{name}' parameter. " for name in missing)
        raise SignatureRefused("IncompleteSignatureException", text.strip(), status=400)
    scope = parts["Credential"].rsplit("/", 4)
    if len(scope) != 5 or scope[4] != "aws4_request":
        raise SignatureRefused(
            "IncompleteSignatureException",
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, "
            f"got '{parts['Credential'][:200]}'",
            status=400,
        )
    signed = tuple(parts["SignedHeaders"].split(";"))
    if len(signed) > SIGNED_HEADERS_MAX or "host" not in signed or not {"x-amz-date", "date"}.intersection(signed):
        raise SignatureRefused(
            "IncompleteSignatureException",
            "'Host' and 'X-Amz-Date' (or 'Date') must be 'SignedHeaders' in the AWS Authorization.",
            status=400,
        )
    return _Claim(scope[0], scope[1], scope[2], scope[3], signed, parts["Signature"])


def _stamp(headers: Mapping[str, Sequence[str]]) -> str:
    given = headers.get("x-amz-date") or headers.get("date") or ()
    if len(given) != 1 or not _STAMP_PATTERN.match(given[0].strip()):
        raise SignatureRefused(
            "IncompleteSignatureException",
            "Date must be in ISO-8601 'basic format', e.g. 20260131T080000Z, in the header X-Amz-Date.",
            status=400,
        )
    return given[0].strip()


def _check_scope(claim: _Claim, stamp: str, service: str) -> None:
    if claim.service != service:
        raise SignatureRefused(
            "InvalidSignatureException", f"Credential should be scoped to correct service: '{service}'. "
        )
    if claim.date != stamp[:8]:
        raise SignatureRefused(
            "InvalidSignatureException",
            f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            f"'{claim.date[:20]}' != '{stamp[:8]}', from '{stamp}'.",
        )


def _check_time(stamp: str, now: float) -> None:
    try:
        signed_at = _epoch(stamp)
    except ValueError as error:
        raise SignatureRefused("IncompleteSignatureException", f"'{stamp}' is no date", status=400) from error
    if signed_at < now - WINDOW_S:
        limit = _written(now - WINDOW_S)
        text = f"Signature expired: {stamp} is now earlier than {limit} ({_written(now)} - 5 min.)"
        raise SignatureRefused("InvalidSignatureException", text)
    if signed_at > now + WINDOW_S:
        limit = _written(now + WINDOW_S)
        text = f"Signature not yet current: {stamp} is still later than {limit} ({_written(now)} + 5 min.)"
        raise SignatureRefused("InvalidSignatureException", text)


@lru_cache(maxsize=16)
def _epoch(stamp: str) -> float:
    """Return what a stamp says in epoch seconds: many requests bear the same one. Raises ValueError."""
    return dt.datetime.strptime(stamp, _STAMP).replace(tzinfo=dt.UTC).timestamp()


def _written(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime(_STAMP)


def _check_body(request: SignedRequest) -> None:
    """A hash that the caller states must be that of what came."""
    for stated in request.headers.get("x-amz-content-sha256", ()):
        if stated.strip() != request.body_hash:
            text = "The value of 'x-amz-content-sha256' is not the SHA-256 of the body."
            raise SignatureRefused("InvalidSignatureException", text)


def _canonical_path(path: str) -> str:
    """Encode the path once more; `.`, `..` and empty parts are gone (as every service but S3 has it)."""
    if _PLAIN_PATH.match(path):
        return path
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if kept:
                kept.pop()
        elif part not in ("", "."):
            kept.append(part)
    ending = "/" if kept and path.endswith("/") else ""
    return quote("/" + "/".join(kept) + ending, safe="/" + _UNRESERVED)


def _canonical_query(query: str) -> str:
    pairs = []
    for pair in query.split("&"):
        if pair:
            name, _, value = pair.partition("=")
            pairs.append((_encoded(name), _encoded(value)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _encoded(text: str) -> str:
    return quote(unquote_to_bytes(text), safe=_UNRESERVED)


def _value(values: Sequence[str]) -> str:
    text = ",".join([value.strip() for value in values])
    return _SPACES.sub(" ", text) if "  " in text else text

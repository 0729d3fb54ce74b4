"""What an error of a call to AWS means: whether anything may have run, whether waiting helps, what to say."""

import re
import socket
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final

from bridge.aws.credentials import CredentialsMissing

_LINE_MAX_CHARS: Final = 500
RETRY_AFTER_MAX_S: Final = 300.0
"""More than this of a Retry-After is not believed."""


class AwsTroubleKind(StrEnum):
    """What to do about it differs by kind."""

    THROTTLED = "throttled"
    """Not done: too much at once. Wait, and it counts as nothing."""
    SERVICE = "service"
    """5xx: the service's own fault; most likely not done."""
    UNREACHABLE = "unreachable"
    """Nothing was sent: no connection."""
    DENIED = "denied"
    """Not done: no permission, or no credentials."""
    NOT_FOUND = "not found"
    EXPIRED_ITERATOR = "expired iterator"
    """Not done: a shard iterator is to be asked for again."""
    EXPIRED_TOKEN = "expired token"  # noqa: S105 - a kind of error
    """Not done: the credentials expired; the next call has others."""
    TOO_LARGE = "too large"
    INVALID = "invalid"
    """Not done, and never will be like this."""
    UNKNOWN_OUTCOME = "unknown outcome"
    """Sent, and no whole answer came: it may have been done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsTrouble:
    """One failed call."""

    kind: AwsTroubleKind
    code: str
    """AWS's error code, or the name of the client's error."""
    message: str
    """One line: what and where."""
    status: int = 0
    """Of the HTTP answer; 0 when none came."""
    retry_after_s: float | None = None
    """What the service asks to wait, 0..300 seconds."""
    reason: str = ""
    """Of a throttle of Lambda's: which limit."""


_THROTTLES: Final = frozenset({
    "ProvisionedThroughputExceededException", "ProvisionedThroughputExceeded", "LimitExceededException",
    "TooManyRequestsException", "RequestLimitExceeded", "BandwidthLimitExceeded", "SlowDown", "OverLimit",
    "AWS.SimpleQueueService.OverLimit", "PriorRequestNotComplete", "TransactionInProgressException",
})  # fmt: skip
"""Beside every code with "Thrott" in it: ThrottlingException, KMSThrottlingException, KMS.ThrottlingException…"""
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
_DENIALS: Final = frozenset({
    "UnrecognizedClientException", "InvalidClientTokenId", "SignatureDoesNotMatch", "InvalidSignatureException",
    "IncompleteSignature", "IncompleteSignatureException", "MissingAuthenticationToken",
    "MissingAuthenticationTokenException", "InvalidAccessKeyId", "NotAuthorized", "UnauthorizedOperation",
    "AuthorizationError", "AuthorizationErrorException", "OptInRequired", "AllAccessDisabled", "AccountProblem",
})  # fmt: skip
_GONE: Final = frozenset({
    "AWS.SimpleQueueService.NonExistentQueue", "AWS.SimpleQueueService.QueueDeletedRecently", "QueueDoesNotExist",
    "NoSuchBucket", "NoSuchKey", "NoSuchEntity",
})  # fmt: skip
_LARGE: Final = frozenset({
    "RequestTooLargeException", "RequestEntityTooLargeException", "EntityTooLarge", "MessageTooLong",
    "BatchRequestTooLong", "AWS.SimpleQueueService.BatchRequestTooLong", "PayloadTooLargeException",
})  # fmt: skip
_LARGE_TEXT: Final = re.compile(r"must be shorter than|[Mm]essage too long|[Ss]ize .*(?:over|exceeds?) the .*limit")
"""SQS, SNS and EventBridge have no code of their own for a message that is too large."""
_FAULTS: Final = frozenset({
    "InternalFailure", "InternalError", "InternalServerError", "InternalServiceError", "ServiceUnavailable",
    "ServiceException", "RequestTimeout", "RequestTimeoutException", "KMSInternalException",
})  # fmt: skip


def call_errors() -> tuple[type[Exception], ...]:
    """Return what a call on a client may raise, for an `except`: nothing of it is a mistake of ours."""
    from aiohttp import ClientError as HttpError
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    return (BotoCoreError, ClientError, ResponseParserError, HttpError, CredentialsMissing, OSError)  # and TimeoutError


def trouble(error: Exception) -> AwsTrouble:
    """Return what `error`, raised by a call on one of `AwsClients`' clients, means.

    A TimeoutError is the caller's own `asyncio.timeout`: the outcome is unknown. So is that of everything that is
    not known to have happened before the request was sent.
    """
    if isinstance(error, CredentialsMissing):
        return AwsTrouble(kind=AwsTroubleKind.DENIED, code="NoCredentials", message=str(error))
    from botocore import exceptions as known

    if isinstance(error, known.ClientError):
        return _answered(error)
    kind = _sent(error)
    return AwsTrouble(kind=kind, code=type(error).__name__, message=_line(str(error) or type(error).__name__))


def _answered(error: Any) -> AwsTrouble:
    response = error.response
    told, about = response.get("Error", {}), response.get("ResponseMetadata", {})
    code, text = str(told.get("Code", "")), str(told.get("Message", ""))
    status = int(about.get("HTTPStatusCode", 0))
    said = f"{error.operation_name}: {code}: {text}" if text else f"{error.operation_name}: {code or status}"
    return AwsTrouble(
        kind=_kind(code, text, status),
        code=code,
        message=_line(said),
        status=status,
        retry_after_s=_retry_after(
            response.get("retryAfterSeconds") or about.get("HTTPHeaders", {}).get("retry-after")
        ),
        reason=str(response.get("Reason", "")),
    )


def _kind(code: str, text: str, status: int) -> AwsTroubleKind:
    if code == "ExpiredIteratorException":
        return AwsTroubleKind.EXPIRED_ITERATOR
    if code in _EXPIRED:
        return AwsTroubleKind.EXPIRED_TOKEN
    if code in _THROTTLES or "thrott" in code.lower() or status == 429:
        return AwsTroubleKind.THROTTLED
    if code in _LARGE or status == 413 or (status == 400 and _LARGE_TEXT.search(text)):
        return AwsTroubleKind.TOO_LARGE
    if code in _DENIALS or "AccessDenied" in code:
        return AwsTroubleKind.DENIED
    if code in _GONE or "NotFound" in code:
        return AwsTroubleKind.NOT_FOUND
    if status >= 500 or code in _FAULTS:
        return AwsTroubleKind.SERVICE
    by_status = {401: AwsTroubleKind.DENIED, 403: AwsTroubleKind.DENIED, 404: AwsTroubleKind.NOT_FOUND}
    if status in by_status:
        return by_status[status]
    # An answer below 400 whose body says "error" was done or not: S3 and proxies have sent such.
    return AwsTroubleKind.INVALID if 400 <= status < 500 else AwsTroubleKind.UNKNOWN_OUTCOME


def _sent(error: Exception) -> AwsTroubleKind:
    """Tell by the client's error whether the request may have left."""
    from aiohttp import ClientConnectorError
    from botocore import exceptions as known

    if isinstance(error, known.EndpointConnectionError):
        # aiobotocore has one error for a connection that never was and for one that was reset under the request.
        cause = error.kwargs.get("error")
        is_unsent = cause is None or isinstance(cause, ClientConnectorError | socket.gaierror)
        return AwsTroubleKind.UNREACHABLE if is_unsent else AwsTroubleKind.UNKNOWN_OUTCOME
    if isinstance(error, known.ConnectTimeoutError | known.ProxyConnectionError | known.SSLError):
        return AwsTroubleKind.UNREACHABLE
    if isinstance(error, known.HTTPClientError):
        return AwsTroubleKind.UNKNOWN_OUTCOME
    denials = (
        known.NoCredentialsError, known.PartialCredentialsError, known.CredentialRetrievalError, known.ProfileNotFound,
        known.TokenRetrievalError, known.SSOError, known.MetadataRetrievalError, known.NoAuthTokenError,
    )  # fmt: skip
    if isinstance(error, denials):
        return AwsTroubleKind.DENIED
    before = (
        known.ParamValidationError, known.ValidationError, known.NoRegionError, known.UnknownServiceError,
        known.EndpointProviderError, known.InvalidEndpointConfigurationError, known.UnknownEndpointError,
        known.DataNotFoundError, known.InvalidRegionError,
    )  # fmt: skip
    return AwsTroubleKind.INVALID if isinstance(error, before) else AwsTroubleKind.UNKNOWN_OUTCOME


def _retry_after(written: Any) -> float | None:
    if not isinstance(written, str | int | float) or written == "":
        return None
    try:
        wait_s = float(written)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(str(written)).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return min(max(wait_s, 0.0), RETRY_AFTER_MAX_S)


def _line(text: str) -> str:
    """Return the first line: the rest of a signature's refusal shows the request, session token included."""
    lines = text.strip().splitlines()
    return lines[0][:_LINE_MAX_CHARS] if lines else ""

"""What an error of AWS means: every kind, by code, status and what the client saw."""

import datetime as dt
from email.utils import format_datetime

import pytest
from botocore import exceptions as boto
from botocore.exceptions import ClientError

from bridge.aws.credentials import CredentialsMissing
from bridge.aws.errors import RETRY_AFTER_MAX_S, AwsTroubleKind, trouble

K = AwsTroubleKind


def client_error(code, status=400, message="m", headers=None, **members):
    response = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers or {}},
        **members,
    }
    return ClientError(response, "Op")


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        *((code, 400, K.THROTTLED) for code in (
            "ProvisionedThroughputExceededException", "LimitExceededException", "ThrottlingException", "Throttling",
            "RequestLimitExceeded", "KMSThrottlingException", "KMS.ThrottlingException", "RequestThrottled",
            "OverLimit", "AWS.SimpleQueueService.OverLimit", "ThrottledException", "BandwidthLimitExceeded",
        )),
        ("SlowDown", 503, K.THROTTLED),
        ("TooManyRequestsException", 429, K.THROTTLED),
        ("AnythingElse", 429, K.THROTTLED),
        ("ExpiredIteratorException", 400, K.EXPIRED_ITERATOR),
        *((code, 403, K.EXPIRED_TOKEN) for code in ("ExpiredToken", "ExpiredTokenException", "RequestExpired")),
        *((code, 400, K.DENIED) for code in (
            "AccessDenied", "AccessDeniedException", "KMSAccessDeniedException", "KMS.AccessDeniedException",
            "UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "AuthorizationError",
        )),
        ("Whatever", 403, K.DENIED),
        *((code, 400, K.NOT_FOUND) for code in (
            "ResourceNotFoundException", "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "NotFound",
            "NotFoundException",
        )),
        ("NoSuchBucket", 404, K.NOT_FOUND),
        ("404", 404, K.NOT_FOUND),
        ("RequestTooLargeException", 413, K.TOO_LARGE),
        ("RequestEntityTooLargeException", 413, K.TOO_LARGE),
        ("AWS.SimpleQueueService.BatchRequestTooLong", 400, K.TOO_LARGE),
        ("InternalFailure", 500, K.SERVICE),
        ("ServiceUnavailable", 503, K.SERVICE),
        ("InternalFailure", 400, K.SERVICE),
        ("502", 502, K.SERVICE),
        ("ValidationException", 400, K.INVALID),
        ("InvalidArgumentException", 400, K.INVALID),
        ("Strange", 200, K.UNKNOWN_OUTCOME),
    ],
)  # fmt: skip
def test_answers(code, status, kind):
    assert kind is trouble(client_error(code, status)).kind


@pytest.mark.parametrize(
    "text",
    [
        "One or more parameters are invalid. Reason: Message must be shorter than 262144 bytes.",
        "Invalid parameter: Message too long",
        "Total size of the entries in the request is over the limit.",
    ],
)
def test_too_large_by_its_text_alone(text):
    assert K.TOO_LARGE is trouble(client_error("InvalidParameterValue", 400, text)).kind


def test_one_line_without_the_request_that_was_signed():
    text = "The signature does not match.\nThe Canonical String was\nx-amz-security-token:SECRET"

    found = trouble(client_error("InvalidSignatureException", 403, text))

    assert "Op: InvalidSignatureException: The signature does not match." == found.message


@pytest.mark.parametrize(
    ("written", "wait_s"),
    [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("99999", RETRY_AFTER_MAX_S), ("soon", None), ("", None)],
)
def test_retry_after(written, wait_s):
    found = trouble(client_error("TooManyRequestsException", 429, headers={"retry-after": written}, Reason="Why"))

    assert (wait_s, "Why") == (found.retry_after_s, found.reason)


def test_retry_after_as_a_date():
    due = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60))

    assert 50 < trouble(client_error("X", 503, headers={"retry-after": due})).retry_after_s <= 60


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (boto.ConnectTimeoutError(endpoint_url="u"), K.UNREACHABLE),
        (boto.EndpointConnectionError(endpoint_url="u"), K.UNREACHABLE),
        (boto.SSLError(endpoint_url="u", error="e"), K.UNREACHABLE),
        (boto.ProxyConnectionError(proxy_url="u"), K.UNREACHABLE),
        (boto.EndpointConnectionError(endpoint_url="u", error=ConnectionResetError()), K.UNKNOWN_OUTCOME),
        (boto.ReadTimeoutError(endpoint_url="u"), K.UNKNOWN_OUTCOME),
        (boto.ConnectionClosedError(endpoint_url="u"), K.UNKNOWN_OUTCOME),
        (boto.HTTPClientError(error="e"), K.UNKNOWN_OUTCOME),
        (TimeoutError(), K.UNKNOWN_OUTCOME),
        (OSError("odd"), K.UNKNOWN_OUTCOME),
        (boto.NoCredentialsError(), K.DENIED),
        (CredentialsMissing("none"), K.DENIED),
        (boto.ParamValidationError(report="r"), K.INVALID),
        (boto.NoRegionError(), K.INVALID),
    ],
)
def test_errors_of_the_client(error, kind):
    assert kind is trouble(error).kind
    assert trouble(error).message

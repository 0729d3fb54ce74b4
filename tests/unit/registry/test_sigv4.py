"""Signatures of requests: what botocore signs is taken, anything else is refused in AWS's words."""

import datetime as dt
import hashlib
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from bridge.registry.sigv4 import SignatureRefused, SignedRequest, Signer, check_signature, claimed_signer, is_signed

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
HOST = "127.0.0.1:8581"
PATH = "/2015-03-31/functions/hello/invocations"


def signed(path=PATH, *, method="POST", query="", body=b"{}", headers=(), service="lambda", region="eu-central-1"):
    """Return a request as botocore signs it now, and the time it was signed at."""
    url = f"http://{HOST}{path}" + (f"?{query}" if query else "")
    request = AWSRequest(method, url, data=body, headers={"host": HOST} | dict(headers))
    SigV4Auth(Credentials(KEY, SECRET), service, region).add_auth(request)
    parts = urlsplit(url)
    received = {name.lower(): [str(value)] for name, value in request.headers.items()}
    at = dt.datetime.strptime(received["x-amz-date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC).timestamp()
    return SignedRequest(method, parts.path, parts.query, received, hashlib.sha256(body).hexdigest()), at


def check(request, now, **more):
    return check_signature(request, secret_of={KEY: SECRET}.get, now=now, **more)


def refused(request, now):
    with pytest.raises(SignatureRefused) as caught:
        check(request, now)
    return caught.value


def changed(request, **headers):
    return request._replace(headers=dict(request.headers) | {name: [value] for name, value in headers.items()})


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (PATH, ""),
        (PATH, "Qualifier=%24LATEST"),
        ("/2015-03-31/functions/", "MaxItems=10&Marker=a%2Bb%3D%3D"),
        ("/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-central-1%3A123456789012%3Afunction%3Ahello/invocations", ""),
        ("/2017-03-31/tags/arn%3Aaws%3Alambda%3Aeu-central-1%3A123456789012%3Afunction%3Ahello", "tagKeys=b&tagKeys=a"),
    ],
)
def test_what_botocore_signs_is_taken(path, query):
    request, now = signed(path, query=query, headers={"X-Amz-Invocation-Type": "Event", "X-Amz-Client-Context": "e30="})
    assert check(request, now) == Signer(KEY, "eu-central-1")
    assert claimed_signer(request.headers) == Signer(KEY, "eu-central-1")
    assert is_signed(request.headers)


@given(
    st.lists(st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1), max_size=4),
    st.lists(st.tuples(st.text(min_size=1), st.text()), max_size=4),
    st.binary(max_size=50),
)
def test_whatever_the_parts_are(segments, pairs, body):
    path = "/" + "/".join(quote(segment, safe="-_.~") for segment in segments)
    query = "&".join(
        f"{quote(name.encode('utf-8', 'replace'), safe='-_.~')}={quote(value.encode('utf-8', 'replace'), safe='-_.~')}"
        for name, value in pairs
    )
    request, now = signed(path, query=query, body=body)
    assert check(request, now).key_id == KEY
    assert refused(request._replace(body_hash=hashlib.sha256(body + b"x").hexdigest()), now).status == 403


def test_nothing_of_it_may_be_changed():
    request, now = signed(query="Qualifier=1")
    variants = {
        "method": request._replace(method="GET"),
        "path": request._replace(path=PATH.replace("hello", "other")),
        "query": request._replace(query="Qualifier=2"),
        "body": request._replace(body_hash=hashlib.sha256(b"other").hexdigest()),
        "host": changed(request, host="elsewhere"),
    }
    for what, variant in variants.items():
        error = refused(variant, now)
        assert (error.code, error.status) == ("InvalidSignatureException", 403), what
        assert str(error).startswith("The request signature we calculated does not match"), what


def test_a_stated_hash_must_be_the_bodys():
    request, now = signed(headers={"x-amz-content-sha256": hashlib.sha256(b"{}").hexdigest()})
    check(request, now)
    assert refused(request._replace(body_hash="0" * 64), now).code == "InvalidSignatureException"


def test_the_time_may_be_five_minutes_off():
    request, now = signed()
    check(request, now + 300)
    check(request, now - 300)
    assert str(refused(request, now + 301)).startswith("Signature expired: ")
    assert str(refused(request, now - 301)).startswith("Signature not yet current: ")


def test_an_unknown_key_is_no_client_of_ours():
    request, now = signed()
    with pytest.raises(SignatureRefused, match="security token") as caught:
        check_signature(request, secret_of={}.get, now=now)
    assert caught.value.code == "UnrecognizedClientException"


def test_it_must_be_signed_for_this_service():
    request, now = signed(service="s3")
    assert str(refused(request, now)) == "Credential should be scoped to correct service: 'lambda'. "


@pytest.mark.parametrize(
    ("authorization", "code", "status", "text"),
    [
        (None, "MissingAuthenticationTokenException", 403, "Missing Authentication Token"),
        ("Bearer token", "IncompleteSignatureException", 400, "Unsupported AWS 'algorithm'"),
        ("AWS4-HMAC-SHA256 ", "IncompleteSignatureException", 400, "requires 'Credential' parameter"),
        ("AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host;x-amz-date, Signature=x", "IncompleteSignatureException",
         400, "exactly 5 slash-delimited elements"),
        ("AWS4-HMAC-SHA256 Credential=a/20260101/r/lambda/aws4_request, SignedHeaders=x-amz-date, Signature=x",
         "IncompleteSignatureException", 400, "'Host' and 'X-Amz-Date'"),
        ("AWS4-HMAC-SHA256 Credential=a/20260101/r/lambda/aws4_request, SignedHeaders=host;x-amz-date, Signature=x",
         "InvalidSignatureException", 403, "Date in Credential scope does not match"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(authorization, code, status, text):
    request, now = signed()
    headers = {name: values for name, values in request.headers.items() if name != "authorization"}
    if authorization is not None:
        headers["authorization"] = [authorization]
    error = refused(request._replace(headers=headers), now)
    assert (error.code, error.status) == (code, status)
    assert text in str(error)


def test_a_date_that_is_none_is_said():
    request, now = signed()
    assert refused(changed(request, **{"x-amz-date": "yesterday"}), now).code == "IncompleteSignatureException"
    request, now = signed()
    bad = dict(request.headers) | {"x-amz-date": ["20260231T000000Z"]}
    bad["authorization"] = [
        request.headers["authorization"][0].replace(request.headers["x-amz-date"][0][:8], "20260231")
    ]
    assert refused(request._replace(headers=bad), now).code == "IncompleteSignatureException"


@given(st.text(), st.text())
def test_no_header_brings_it_down(authorization, stamp):
    request = SignedRequest("GET", "/", "", {"authorization": [authorization], "x-amz-date": [stamp]}, "0" * 64)
    with pytest.raises(SignatureRefused):
        check(request, 0.0)

"""Signature schemes: the vendors' published examples, bodies signed by their own SDKs, and everything that is refused.

1 published examples  2 vendors' SDKs  3 rotation  4 time window  5 forgeries  6 delivery ids  7 configuration
"""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
import standardwebhooks
import stripe
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from slack_sdk.signature import SignatureVerifier
from twilio.request_validator import RequestValidator

from bridge.core.errors import ConfigError
from bridge.events.http import HttpRequest
from bridge.sources.push.signatures import SCHEMES, make_verifier
from bridge.testing.clock import ManualClock

NOW = 1_767_225_600
BODY = b'{"id":"evt_1","name":"Ada"}'
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def request(body=BODY, *, path=b"/hooks/x", query=b"", method="POST", **headers):
    pairs = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return HttpRequest(method=method, path=path, query=query, headers=pairs, body=body)


def verify(scheme, sent, *secrets, now=NOW, **options):
    return make_verifier(scheme, secrets=secrets, clock=ManualClock(time=now), **options).verify(sent)


# --- 1 published examples ---------------------------------------------------------------------------------------------


def test_standard_webhooks_published_example():
    sent = request(
        b'{"test": 2432232314}',
        webhook_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        webhook_timestamp="1614265330",
        webhook_signature="v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    )
    verdict = verify("standard-webhooks", sent, WHSEC, now=1614265330)

    assert verdict.ok
    assert verdict.delivery_id == "msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_github_published_example():
    sent = request(
        b"Hello, World!",
        x_hub_signature_256="sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        x_github_delivery="72d3162e-cc78-11e3-81ab-4c9367dc0958",
    )
    verdict = verify("github", sent, "It's a Secret to Everybody")

    assert verdict.ok
    assert verdict.delivery_id == "72d3162e-cc78-11e3-81ab-4c9367dc0958"


SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)


def test_slack_published_example():
    sent = request(
        SLACK_BODY,
        x_slack_request_timestamp="1531420618",
        x_slack_signature="v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    )

    assert verify("slack", sent, "8f742231b10e8888abcd99yyyzzz85a5", now=1531420618).ok


TWILIO_FORM = "CallSid=CA1234567890ABCDE&Caller=%2B12349013030&Digits=1234&From=%2B12349013030&To=%2B18005551212"
FORM = "application/x-www-form-urlencoded"


def test_twilio_published_example():
    sent = request(
        TWILIO_FORM.encode(),
        path=b"/myapp.php",
        query=b"foo=1&bar=2",
        content_type=FORM,
        x_twilio_signature="0/KCTR6DLpKmkAf8muzZqo1nDgQ=",
        i_twilio_idempotency_token="token-1",
    )
    verdict = verify("twilio", sent, "12345", public_url="https://mycompany.com")

    assert verdict.ok
    assert verdict.delivery_id == "token-1"


def test_basic_published_example():
    assert verify("basic", request(authorization="Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), "Aladdin:open sesame").ok


# --- 2 vendors' SDKs --------------------------------------------------------------------------------------------------


def standard(body=BODY, *, secret=WHSEC, at=NOW):
    signature = standardwebhooks.Webhook(secret).sign("msg_1", datetime.fromtimestamp(at, UTC), body.decode())
    return request(body, webhook_id="msg_1", webhook_timestamp=str(at), webhook_signature=signature)


def stripes(body=BODY, *, secret="whsec_stripe", at=NOW):
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, at)
    return request(body, stripe_signature=header)


def slacks(body=BODY, *, secret="slack-secret", at=NOW):
    signature = SignatureVerifier(secret).generate_signature(timestamp=str(at), body=body)
    return request(body, x_slack_request_timestamp=str(at), x_slack_signature=signature)


def githubs(body=BODY, *, secret="s", at=NOW):
    return request(body, x_hub_signature_256="sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest())


def shopifys(body=BODY, *, secret="s", at=NOW):
    # As in the vendor's own example: shopify.dev/docs/apps/build/webhooks/subscribe/https
    digest = hmac.new(secret.encode("utf-8"), body, digestmod=hashlib.sha256).digest()
    computed_hmac = base64.b64encode(digest)
    return request(body, x_shopify_hmac_sha256=computed_hmac.decode(), x_shopify_webhook_id="b54557e4")


def hmacs(body=BODY, *, secret="s", at=NOW):
    signature = hmac.new(secret.encode(), b"%d.%b" % (at, body), "sha256").hexdigest()
    return request(body, x_signature=signature, x_timestamp=str(at), x_delivery="d-1")


HMAC = {"header": "X-Signature", "timestamp_header": "X-Timestamp", "delivery_header": "X-Delivery"}
TIMED = {"standard-webhooks": (standard, WHSEC), "stripe": (stripes, "whsec_stripe"), "slack": (slacks, "slack-secret")}
SIGNED = {**TIMED, "github": (githubs, "s"), "shopify": (shopifys, "s"), "hmac": (hmacs, "s")}
OPTIONS = {"hmac": HMAC}
TIMED = {**TIMED, "hmac": (hmacs, "s")}
OTHERS = {"standard-webhooks": "whsec_" + base64.b64encode(b"x" * 32).decode()}


def other(scheme):
    return OTHERS.get(scheme, "another secret")


@pytest.mark.parametrize("scheme", SIGNED)
def test_what_the_vendor_signs_is_accepted(scheme):
    sign, secret = SIGNED[scheme]

    verdict = verify(scheme, sign(), secret, **OPTIONS.get(scheme, {}))
    assert verdict.ok, verdict.reason


@pytest.mark.parametrize("public_url", ["https://hooks.example.com", "https://hooks.example.com:443/", "https://hooks.example.com/hooks/x"])  # fmt: skip
@pytest.mark.parametrize("signed_port", ["", ":443"])
def test_twilio_form_signed_by_the_sdk(public_url, signed_port):
    fields = {"Body": "héllo wörld", "From": "+1415", "Empty": ""}
    url = f"https://hooks.example.com{signed_port}/hooks/x?a=1"
    signature = RequestValidator("token").compute_signature(url, fields)
    body = b"Body=h%C3%A9llo+w%C3%B6rld&From=%2B1415&Empty="
    sent = request(body, query=b"a=1", content_type=FORM + "; charset=UTF-8", x_twilio_signature=signature)

    assert verify("twilio", sent, "token", public_url=public_url).ok


def twilio_json(body, *, covered=None, settings="", algorithm=None):
    query = "bodySHA256=" + hashlib.sha256(covered if covered is not None else body).hexdigest()
    url = "https://hooks.example.com/hooks/x?" + query
    signature = RequestValidator("token").compute_signature(url, {}, algorithm)
    headers = {"x_twilio_webhooks_signature_settings": settings} if settings else {}
    return request(body, query=query.encode(), content_type="application/json", x_twilio_signature=signature, **headers)


def test_twilio_json_signed_by_the_sdk():
    assert verify("twilio", twilio_json(BODY), "token", public_url="https://hooks.example.com").ok


def test_twilio_with_a_shared_key():
    sent = twilio_json(BODY, settings="key=k1,algorithm=HMAC_SHA256", algorithm="HMAC_SHA256")
    assert verify("twilio", sent, "token", public_url="https://hooks.example.com").ok
    sent = twilio_json(BODY, settings="key=k1,algorithm=MD5")
    assert (
        verify("twilio", sent, "token", public_url="https://hooks.example.com").reason == "unknown signature algorithm"
    )


def test_twilio_a_body_that_nothing_covers_is_refused():
    url = "https://hooks.example.com"
    assert not verify("twilio", twilio_json(BODY, covered=b"other"), "token", public_url=url).ok
    signature = RequestValidator("token").compute_signature(url + "/hooks/x", {})
    sent = request(BODY, content_type="application/json", x_twilio_signature=signature)
    assert verify("twilio", sent, "token", public_url=url).reason == "bodySHA256 does not cover the body"
    assert verify("twilio", sent._replace(body=b"", method="GET"), "token", public_url=url).ok


def test_standard_webhooks_ed25519():
    key = Ed25519PrivateKey.generate()
    signed = base64.b64encode(key.sign(b"msg_1.%d.%b" % (NOW, BODY))).decode()
    public = "whpk_" + base64.b64encode(key.public_key().public_bytes_raw()).decode()
    headers = {"webhook_id": "msg_1", "webhook_timestamp": str(NOW)}

    assert verify("standard-webhooks", request(**headers, webhook_signature="v1a," + signed), public).ok
    assert verify("standard-webhooks", request(**headers, webhook_signature="v1,x v1a," + signed), WHSEC, public).ok
    for bad in ("v1," + signed, "v1a," + signed[:-4], "v1a,!", "v1a,", "v1b," + signed):
        assert not verify("standard-webhooks", request(**headers, webhook_signature=bad), public).ok
    assert not verify("standard-webhooks", request(b"x", **headers, webhook_signature="v1a," + signed), public).ok


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
def test_hmac_in_every_form(algorithm, encoding):
    raw = hmac.new(b"s", BODY, algorithm).digest()
    signature = raw.hex() if encoding == "hex" else base64.b64encode(raw).decode()
    options = {"header": "X-Sig", "algorithm": algorithm, "encoding": encoding, "prefix": "sig="}

    assert verify("hmac", request(x_sig="sig=" + signature), "s", **options).ok
    assert not verify("hmac", request(x_sig=signature), "s", **options).ok


def test_hmac_with_a_template():
    signature = hmac.new(b"s", b"v2:%d:%b:end" % (NOW, BODY), "sha256").hexdigest()
    sent = request(x_sig=signature, x_time=str(NOW))
    options = {"header": "x-sig", "timestamp_header": "x-time", "template": "v2:{timestamp}:{body}:end"}

    assert verify("hmac", sent, "s", **options).ok


def test_hmac_a_body_that_holds_a_placeholder_is_only_a_body():
    body = b"{timestamp}{body}"
    signature = hmac.new(b"s", b"%d.%b" % (NOW, body), "sha256").hexdigest()

    assert verify("hmac", request(body, x_signature=signature, x_timestamp=str(NOW)), "s", **HMAC).ok


def test_bearer_and_none():
    assert verify("bearer", request(authorization="Bearer s3cret"), "old", "s3cret").ok
    assert verify("bearer", request(authorization="bearer s3cret"), "s3cret").ok
    assert verify("none", request()).ok


@pytest.mark.parametrize("sent", ["", "Bearer", "Bearer ", "Bearer wrong", "Basic s3cret", "s3cret", "Bearers3cret"])
def test_bearer_forgeries(sent):
    assert not verify("bearer", request(authorization=sent), "s3cret").ok


@pytest.mark.parametrize("sent", ["Basic !", "Basic", "Basic QWxhZGRpbjpvcGVu", "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ=="])
def test_basic_forgeries(sent):
    assert not verify("basic", request(authorization=sent), "Aladdin:open sesame").ok


def test_a_credential_is_kept_out_of_the_event():
    for scheme, secret in (("basic", "a:b"), ("bearer", "s")):
        verifier = make_verifier(scheme, secrets=[secret], clock=ManualClock())
        assert "authorization" in verifier.hidden_headers


def test_slack_url_verification_is_answered_after_verifying():
    body = b'{"type":"url_verification","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}'

    response = verify("slack", slacks(body), "slack-secret").response
    assert (response.status, response.body) == (200, b"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P")
    assert verify("slack", slacks(body), "wrong").response is None


# --- 3 rotation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SIGNED)
def test_any_of_several_secrets_will_do(scheme):
    sign, secret = SIGNED[scheme]
    options = OPTIONS.get(scheme, {})

    for secrets in ([secret, other(scheme)], [other(scheme), secret], [secret.encode(), other(scheme).encode()]):
        assert verify(scheme, sign(), *secrets, **options).ok
    assert not verify(scheme, sign(), other(scheme), **options).ok


def test_one_good_signature_among_several_will_do():
    good = stripes().headers[0][1].decode()
    for header in (f"{good},v1={'0' * 64}", good.replace("v1=", f"v1={'0' * 64},v1="), good + ",v0=junk"):
        assert verify("stripe", request(stripe_signature=header), "whsec_stripe").ok
    sent = standard()
    several = "v1,AAAA v2,x " + dict(sent.headers)[b"webhook-signature"].decode()
    sent = request(webhook_id="msg_1", webhook_timestamp=str(NOW), webhook_signature=several)
    assert verify("standard-webhooks", sent, WHSEC).ok


# --- 4 time window ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", TIMED)
@pytest.mark.parametrize(("offset", "ok"), [(-301, False), (-300, True), (0, True), (300, True), (301, False)])
def test_the_window_is_300_s_both_ways(scheme, offset, ok):
    sign, secret = TIMED[scheme]

    assert verify(scheme, sign(at=NOW + offset), secret, **OPTIONS.get(scheme, {})).ok is ok


def test_the_window_follows_the_stepped_clock():
    clock = ManualClock(time=NOW)
    verifier = make_verifier("stripe", secrets=["whsec_stripe"], clock=clock)
    clock.step(3600)

    assert not verifier.verify(stripes(at=NOW)).ok
    assert verifier.verify(stripes(at=NOW + 3600)).ok


BAD_TIMES = ["", "soon", "1767225600.5", "-1767225600", "1" + "0" * 20, " 1767225600", "1767225600 ", "١٧٦٧", "0x69"]


@pytest.mark.parametrize("time", BAD_TIMES)
def test_a_time_that_is_none_is_refused_even_when_signed(time):
    text = time.encode("utf-8").decode("latin-1")
    raw = time.encode("utf-8")
    keyed = hmac.new(b"slack-secret", b"v0:" + raw + b":" + BODY, "sha256").hexdigest()
    sent = request(x_slack_request_timestamp=text, x_slack_signature="v0=" + keyed)
    assert not verify("slack", sent, "slack-secret").ok
    keyed = hmac.new(b"s", raw + b"." + BODY, "sha256").hexdigest()
    assert not verify("stripe", request(stripe_signature=f"t={text},v1={keyed}"), "s").ok
    assert not verify("hmac", request(x_signature=keyed, x_timestamp=text), "s", **HMAC).ok
    key = base64.b64decode(WHSEC[6:])
    keyed = base64.b64encode(hmac.new(key, b"msg_1." + raw + b"." + BODY, "sha256").digest()).decode()
    sent = request(webhook_id="msg_1", webhook_timestamp=text, webhook_signature="v1," + keyed)
    assert not verify("standard-webhooks", sent, WHSEC).ok


# --- 5 forgeries ------------------------------------------------------------------------------------------------------


def forgeries(sent, name):
    """Yield requests with the signature's header missing, empty, wrong, cut, in upper case, twice; and a changed body."""
    value = dict(sent.headers)[name]
    rest = [pair for pair in sent.headers if pair[0] != name]
    yield sent._replace(headers=rest)
    for changed in (b"", b"x", value[:-1], value + b"0", value.upper(), value[4:], b"\xff"):
        if changed != value:
            yield sent._replace(headers=[*rest, (name, changed)])
    yield sent._replace(headers=[*rest, (name, value), (name, value)])
    yield sent._replace(body=sent.body + b" ")
    yield sent._replace(body=b"")


HEADERS = {
    "standard-webhooks": b"webhook-signature",
    "stripe": b"stripe-signature",
    "slack": b"x-slack-signature",
    "github": b"x-hub-signature-256",
    "shopify": b"x-shopify-hmac-sha256",
    "hmac": b"x-signature",
}


@pytest.mark.parametrize("scheme", SIGNED)
def test_forgeries_are_refused_with_a_reason(scheme):
    sign, secret = SIGNED[scheme]
    verifier = make_verifier(scheme, secrets=[secret], clock=ManualClock(time=NOW), **OPTIONS.get(scheme, {}))

    for sent in forgeries(sign(), HEADERS[scheme]):
        verdict = verifier.verify(sent)
        assert not verdict.ok, sent
        assert verdict.reason
        assert "\n" not in verdict.reason


@pytest.mark.parametrize("scheme", SIGNED)
@pytest.mark.parametrize("other_scheme", SIGNED)
def test_another_scheme_s_signature_is_refused(scheme, other_scheme):
    if scheme != other_scheme:
        _, secret = SIGNED[scheme]
        sign, _ = SIGNED[other_scheme]
        assert not verify(scheme, sign(), secret, **OPTIONS.get(scheme, {})).ok


def test_twilio_forgeries():
    signature = "0/KCTR6DLpKmkAf8muzZqo1nDgQ="
    sent = request(TWILIO_FORM.encode(), path=b"/myapp.php", query=b"foo=1&bar=2", content_type=FORM, x_twilio_signature=signature)  # fmt: skip
    verifier = make_verifier("twilio", secrets=["12345"], clock=ManualClock(), public_url="https://mycompany.com")

    assert verifier.verify(sent).ok
    for forged in forgeries(sent, b"x-twilio-signature"):
        if forged.body != sent.body + b" ":
            assert not verifier.verify(forged).ok
    assert not verifier.verify(sent._replace(query=b"foo=1")).ok
    assert not verifier.verify(sent._replace(path=b"/other")).ok
    assert not verifier.verify(sent._replace(body=sent.body + b"&x=1")).ok
    assert verifier.verify(sent._replace(body=b"&".join(b"a=1" for _ in range(2000)))).reason == "more than 1000 fields"


def test_too_many_signatures_are_not_looked_at():
    good = stripes().headers[0][1].decode()
    padded = good.replace("v1=", "v1=" + ",v1=".join(["0" * 64] * 50) + ",v1=")

    assert not verify("stripe", request(stripe_signature=padded), "whsec_stripe").ok


def test_two_times_in_one_stripe_header_are_refused():
    good = stripes().headers[0][1].decode()

    assert not verify("stripe", request(stripe_signature=f"{good},t={NOW}"), "whsec_stripe").ok


# --- 6 delivery ids ---------------------------------------------------------------------------------------------------


def test_delivery_ids():
    assert verify("standard-webhooks", standard(), WHSEC).delivery_id == "msg_1"
    assert verify("stripe", stripes(), "whsec_stripe").delivery_id == "evt_1"
    assert verify("slack", slacks(b'{"event_id":"Ev1"}'), "slack-secret").delivery_id == "Ev1"
    assert verify("shopify", shopifys(), "s").delivery_id == "b54557e4"
    assert verify("hmac", hmacs(), "s", **HMAC).delivery_id == "d-1"
    assert verify("bearer", request(authorization="Bearer s", x_id="7"), "s", delivery_header="X-Id").delivery_id == "7"
    assert verify("none", request(x_id="7"), delivery_header="X-Id").delivery_id == "7"
    assert verify("none", request(x_id="7")).delivery_id == ""


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"not json", b'{"id":7}', b'{"id":null}', b"[" * 2000])
def test_a_body_without_an_id_is_no_reason_to_refuse(body):
    verdict = verify("stripe", stripes(body), "whsec_stripe")

    assert (verdict.ok, verdict.delivery_id) == (True, "")


@pytest.mark.parametrize("sent", ["x" * 8000, "a\tb", "\xff\x85"])
def test_a_delivery_id_that_is_long_or_odd_is_kept_as_its_digest(sent):
    delivery_id = verify("none", request(x_id=sent), delivery_header="x-id").delivery_id

    assert delivery_id.startswith("sha256:")
    assert len(delivery_id) == 71


# --- 7 configuration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "secrets", "options", "text"),
    [
        ("githib", ["s"], {}, "unknown scheme 'githib'; did you mean github?"),
        ("github", [], {}, "scheme github needs at least one secret"),
        ("github", [""], {}, "a secret of scheme github is empty"),
        ("github", ["s"], {"public_urll": "x"}, "scheme github has no option 'public_urll'"),
        ("twilio", ["s"], {"public_urll": "x"}, "did you mean public_url?"),
        ("twilio", ["s"], {}, "scheme twilio needs public_url"),
        ("twilio", ["s"], {"public_url": "hooks.example.com"}, "scheme twilio needs public_url"),
        ("twilio", ["s"], {"public_url": "https://a/?b=c"}, "without a query"),
        ("standard-webhooks", ["whsec_short"], {}, "standard-webhooks secret"),
        ("standard-webhooks", ["whsec_" + "A" * 20], {}, "has 15 bytes; 24 to 64 are allowed"),
        ("standard-webhooks", ["whsec_!"], {}, "not base64"),
        ("standard-webhooks", ["whpk_AAAA"], {}, "not an ed25519 public key"),
        ("basic", ["password"], {}, "must be user:password"),
        ("none", ["s"], {}, "takes no secrets"),
        ("hmac", ["s"], {}, "it must be the name of a header"),
        ("hmac", ["s"], {"header": "X: Y"}, "it must be the name of a header"),
        ("hmac", ["s"], {"header": "X", "algorithm": "md5"}, "must be one of sha1, sha256, sha512"),
        ("hmac", ["s"], {"header": "X", "encoding": "HEX"}, "must be one of hex, base64"),
        ("hmac", ["s"], {"header": "X", "template": "x"}, "must hold {body} once"),
        ("hmac", ["s"], {"header": "X", "template": "{timestamp}{body}"}, "if, and only if, timestamp_header is set"),
        ("hmac", ["s"], {"header": "X", "timestamp_header": "T", "template": "{body}"}, "if, and only if"),
        ("stripe", ["s"], {"window_s": 0}, "between 1 and 3600"),
    ],
)
def test_mistakes_are_said_in_one_line_without_the_secret(scheme, secrets, options, text):
    with pytest.raises(ConfigError) as raised:
        make_verifier(scheme, secrets=secrets, clock=ManualClock(), **options)

    assert text in str(raised.value)
    assert "\n" not in str(raised.value)


def test_every_scheme_of_the_documentation_is_there():
    names = "standard-webhooks github stripe slack shopify twilio hmac basic bearer sns none"

    assert list(SCHEMES) == names.split()

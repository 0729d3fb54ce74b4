"""A topic as AWS would be: posts in SNS's shapes, signed with a key and a certificate of the test's own."""

import base64
import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

REGION = "us-west-2"
HOST = f"sns.{REGION}.amazonaws.com"
CERTIFICATE_URL = f"https://{HOST}/SimpleNotificationService-0123456789abcdef.pem"

_KEYS: dict[int, rsa.RSAPrivateKey] = {}


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return a key; made once for each size, since that takes a tenth of a second."""
    if bits not in _KEYS:
        _KEYS[bits] = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    return _KEYS[bits]


def certificate_pem(
    key: Any = None,
    *,
    name: str = "sns.amazonaws.com",
    alternative: str = "",
    valid_from: datetime = datetime(2020, 1, 1, tzinfo=UTC),
    valid_for: timedelta = timedelta(days=20_000),
) -> bytes:
    """Return a certificate for a key, signed by itself: whom it is for, and how long it is good."""
    key = key or rsa_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid_from)
        .not_valid_after(valid_from + valid_for)
    )
    if alternative:
        names = x509.SubjectAlternativeName([x509.DNSName(alternative)])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Topic:
    """Posts of one topic; every member can be chosen, and is signed as it is."""

    def __init__(self, name: str = "orders", *, account: str = "123456789012", version: str = "2") -> None:
        self.arn = f"arn:aws:sns:{REGION}:{account}:{name}"
        self.subscription = f"{self.arn}:c9135db0-26c4-47ec-8998-413945fb5a96"
        self.version = version

    def notification(self, message: str = '{"id": 1}', **changed: Any) -> dict[str, Any]:
        """Return a signed notification."""
        return self.signed(
            {
                "Type": "Notification",
                "MessageId": str(uuid.uuid4()),
                "TopicArn": self.arn,
                "Message": message,
                "Timestamp": changed.pop("Timestamp", _now()),
                "UnsubscribeURL": f"https://{HOST}/?Action=Unsubscribe&SubscriptionArn={self.subscription}",
                **changed,
            }
        )

    def confirmation(self, kind: str = "SubscriptionConfirmation", **changed: Any) -> dict[str, Any]:
        """Return a signed question whether the topic may post."""
        token = changed.pop("Token", "2336412f37fb687f5d51e6e241d0")
        return self.signed(
            {
                "Type": kind,
                "MessageId": str(uuid.uuid4()),
                "Token": token,
                "TopicArn": self.arn,
                "Message": f"You have chosen to subscribe to the topic {self.arn}.\nTo confirm …",
                "SubscribeURL": f"https://{HOST}/?Action=ConfirmSubscription&TopicArn={self.arn}&Token={token}",
                "Timestamp": _now(),
                **changed,
            }
        )

    def signed(self, members: dict[str, Any], key: rsa.RSAPrivateKey | None = None) -> dict[str, Any]:
        """Return the members with a signature over those that SNS signs."""
        is_notification = members["Type"] == "Notification"
        names = ["Message", "MessageId", "Timestamp", "TopicArn", "Type"]
        names += ["Subject"] if is_notification else ["SubscribeURL", "Token"]
        text = "".join(f"{name}\n{members[name]}\n" for name in sorted(names) if name in members)
        algorithm = hashes.SHA256() if self.version == "2" else hashes.SHA1()
        signature = (key or rsa_key()).sign(text.encode(), padding.PKCS1v15(), algorithm)
        return {
            "SignatureVersion": self.version,
            "Signature": base64.b64encode(signature).decode(),
            "SigningCertURL": CERTIFICATE_URL,
            **members,
        }

    def headers(self, members: dict[str, Any]) -> dict[str, str]:
        """Return the headers that SNS sends with a post."""
        headers = {
            "content-type": "text/plain; charset=UTF-8",
            "x-amz-sns-message-type": members["Type"],
            "x-amz-sns-message-id": members["MessageId"],
            "x-amz-sns-topic-arn": members["TopicArn"],
        }
        if members["Type"] != "SubscriptionConfirmation":
            headers["x-amz-sns-subscription-arn"] = self.subscription
        return headers


def body_of(members: dict[str, Any]) -> bytes:
    """Return a post as it goes over the wire."""
    return json.dumps(members).encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def server_files(folder: Path, host: str) -> tuple[Path, Path]:
    """Write an authority, and key and certificate of a server that is `host`; return both files."""
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bridge-test-ca")])
    authority = _certificate(authority_key.public_key(), issuer, issuer, authority_key, is_authority=True)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    server = _certificate(server_key.public_key(), name, issuer, authority_key, host=host)
    files = folder / "sns-ca.pem", folder / "sns-server.pem"
    files[0].write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    key = server_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files[1].write_bytes(key + server.public_bytes(serialization.Encoding.PEM))
    return files


def _certificate(
    key: ec.EllipticCurvePublicKey,
    name: x509.Name,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool = False,
    host: str = "",
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if is_authority:
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = builder.add_extension(usage, critical=True)
    if host:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    return builder.sign(signer, hashes.SHA256())

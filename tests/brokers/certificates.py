"""Certificates for the brokers of tests: one authority, a broker's and a client's, as PEM files of a folder."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VALID = timedelta(days=2)


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files: the authority, key and certificate of a client, and both in one file for a broker."""

    ca: Path
    broker: Path
    client_certificate: Path
    client_key: Path

    @classmethod
    def of(cls, folder: Path) -> "Certificates":
        """Name the files of a folder, whether they are there yet or not."""
        return cls(folder / "ca.pem", folder / "broker.pem", folder / "client.pem", folder / "client.key")


def make_certificates(folder: Path) -> Certificates:
    """Write an authority, a certificate for 127.0.0.1 and localhost, and one for a client (CN=bridge-client)."""
    folder.mkdir(parents=True, exist_ok=True)
    files = Certificates.of(folder)
    ca_key, ca = _certificate("bridge-test-ca", None)
    files.ca.write_bytes(_pem(ca))
    key, certificate = _certificate("localhost", (ca_key, ca))
    files.broker.write_bytes(_pem(key) + _pem(certificate) + _pem(ca))
    key, certificate = _certificate("bridge-client", (ca_key, ca))
    files.client_key.write_bytes(_pem(key))
    files.client_certificate.write_bytes(_pem(certificate))
    return files


def _certificate(
    name: str, issuer: tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signing_key, issuer_name = (issuer[0], issuer[1].subject) if issuer else (key, subject)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False)
    )
    if issuer is None:
        usage = dict.fromkeys(
            (
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        builder = builder.add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage), critical=True
        )
    else:
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return key, builder.sign(signing_key, hashes.SHA256())


def _pem(item: ec.EllipticCurvePrivateKey | x509.Certificate) -> bytes:
    if isinstance(item, x509.Certificate):
        return item.public_bytes(serialization.Encoding.PEM)
    return item.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

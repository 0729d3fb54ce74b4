"""A folder with a working configuration to spoil, and a way to ask for the mistakes of any text."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bridge.config.load import Loaded, load
from bridge.config.mistakes import ConfigErrors

GOOD = """\
[functions.hello]
code = "code"
handler = "app.handler"

[sources.hello]
type = "webhook"
path = "/hooks/hello"
function = "hello"
verify = "none"
"""

Load = Callable[..., Loaded]
Mistakes = Callable[..., list[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a function's code."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app.py").write_text("def handler(event, context):\n    return event\n")
    return tmp_path


@pytest.fixture
def load_text(folder: Path) -> Load:
    def read(text: str | bytes = GOOD, environ: Mapping[str, str] | None = None) -> Loaded:
        (folder / "bridge.toml").write_bytes(text.encode() if isinstance(text, str) else text)
        return load(None, environ or {})

    return read


@pytest.fixture
def mistakes(load_text: Load) -> Mistakes:
    """Return the mistakes of a text; a text without any fails the test."""

    def read(text: str | bytes, environ: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigErrors) as caught:
            load_text(text, environ)
        assert str(caught.value) == "\n".join(caught.value.mistakes)
        return list(caught.value.mistakes)

    return read


@pytest.fixture
def pair(folder: Path) -> None:
    """Write cert.pem and key.pem, a pair."""
    import datetime as dt

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bridge")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    descriptor = os.open(folder / "key.pem", os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(descriptor, pem)
    os.close(descriptor)

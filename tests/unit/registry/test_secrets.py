"""Sealing: only the same key, the same place and the same bytes open it; the key file is ours alone."""

import base64
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.registry.secrets import Seal, SealBroken


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("seal") / "state.key"


@given(plain=st.binary(max_size=5000), place=st.text(st.characters(codec="utf-8"), max_size=40))
def test_what_was_sealed_is_opened(path, plain, place):
    sealed = Seal(path).close(plain, bound_to=place)
    assert Seal(path).open(sealed, bound_to=place) == plain
    if len(plain) > 8:
        assert plain not in sealed.encode()
        assert base64.b64encode(plain)[:-4] not in sealed.encode()
    with pytest.raises(SealBroken):
        Seal(path).open(sealed, bound_to=place + "x")


def test_the_key_file_is_made_when_it_is_needed_and_for_us_alone(tmp_path):
    path = tmp_path / "state.key"
    with pytest.raises(SealBroken, match="missing"):
        Seal(path).open("{}", bound_to="")
    assert not path.exists()
    Seal(path).close(b"x", bound_to="")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["state.key"]


@pytest.mark.parametrize("harm", ["other", "short", "open", "text", "folder"])
def test_a_key_file_that_cannot_be_used(tmp_path, harm):
    path = tmp_path / "state.key"
    sealed = Seal(path).close(b"x", bound_to="")
    if harm == "open":
        path.chmod(0o640)
    elif harm == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(
            {"other": base64.b64encode(b"k" * 32), "short": base64.b64encode(b"k" * 16), "text": b"?"}[harm]
        )
    with pytest.raises(SealBroken):
        Seal(path).open(sealed, bound_to="")


@pytest.mark.parametrize(
    "sealed", ["", "{}", "[]", '{"wrapped": 1, "value": 2}', '{"wrapped": "AAAA", "value": "AAAA"}']
)
def test_what_was_never_sealed(path, sealed):
    Seal(path).close(b"x", bound_to="")
    with pytest.raises(SealBroken):
        Seal(path).open(sealed, bound_to="")

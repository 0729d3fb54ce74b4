"""Sealing: only the same key, the same place and the same bytes open it; the key file is ours alone."""

import base64
import os
import stat

import orjson
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.errors import SealBroken
from bridge.registry import secrets
from bridge.registry.secrets import Binding, DataKey, Seal

texts = st.text(st.characters(codec="utf-8"), max_size=20)
places = st.builds(Binding, function_arn=texts, version=texts, name=texts)
HERE = Binding(function_arn="arn:aws:lambda:us-east-1:000000000000:function:f", version="1")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("seal") / "state.key"


@given(plain=st.binary(max_size=5000), place=places, other=places)
def test_what_was_sealed_is_opened_in_its_place_alone(path, plain, place, other):
    sealed = Seal(path).close(plain, bound_to=place)
    assert Seal(path).open(sealed, bound_to=place) == plain
    if len(plain) > 8:
        assert plain not in sealed.encode()
        assert base64.b64encode(plain)[:-4] not in sealed.encode()
    if other != place:
        with pytest.raises(SealBroken):
            Seal(path).open(sealed, bound_to=other)


@pytest.mark.parametrize("member", ["function_arn", "version", "name"])
def test_each_part_of_the_place_is_bound(path, member):
    sealed = Seal(path).close(b"x", bound_to=HERE)
    other = Binding(**{"function_arn": HERE.function_arn, "version": HERE.version, "name": HERE.name, member: "other"})
    with pytest.raises(SealBroken):
        Seal(path).open(sealed, bound_to=other)
    with pytest.raises(SealBroken):  # nor does it count for the other place after its own key was wrapped anew
        Seal(path).rewrap(sealed, bound_to=other)


def test_the_key_file_is_made_when_it_is_needed_and_for_us_alone(tmp_path):
    path = tmp_path / "state.key"
    with pytest.raises(SealBroken, match="missing"):
        Seal(path).open("{}", bound_to=HERE)
    assert not path.exists()
    assert Seal(path).keys() == ()
    Seal(path).close(b"x", bound_to=HERE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["state.key"]


HARMS = {
    "other": base64.b64encode(b"k" * 32), "short": base64.b64encode(b"k" * 16), "text": b"?", "empty": b"\n",
    "time": base64.b64encode(b"k" * 32) + b" yesterday", "many": (base64.b64encode(b"k" * 32) + b"\n") * 40,
}  # fmt: skip


@pytest.mark.parametrize("harm", [*HARMS, "open", "folder"])
def test_a_key_file_that_cannot_be_used(tmp_path, harm):
    path = tmp_path / "state.key"
    sealed = Seal(path).close(b"x", bound_to=HERE)
    if harm == "open":
        path.chmod(0o640)
    elif harm == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(HARMS[harm])
    with pytest.raises(SealBroken) as refused:
        Seal(path).open(sealed, bound_to=HERE)
    assert base64.b64encode(b"k" * 32).decode()[:8] not in str(refused.value)


@pytest.mark.parametrize(
    "sealed",
    ["", "{}", "[]", '{"wrapped": 1, "value": 2}', '{"wrapped": "AAAA", "value": "AAAA"}', '{"v": 3, "key": "aws/lambda"}',
     '{"v": 2, "key": "aws/lambda", "id": "gone", "wrapped": "AAAA", "value": "AAAA"}'],
)  # fmt: skip
def test_what_was_never_sealed(path, sealed):
    seal = Seal(path)
    seal.close(b"x", bound_to=HERE)
    for use in (seal.open, seal.rewrap, seal.holder):
        with pytest.raises(SealBroken):
            use(sealed, bound_to=HERE)


def of_the_first_form(path, plain):
    """Return a value, and leave a key file, as they were written before documents had a version."""
    kek = AESGCM.generate_key(bit_length=256)
    path.write_bytes(base64.b64encode(kek) + b"\n")
    path.chmod(0o600)
    own, bound = AESGCM.generate_key(bit_length=256), f"{HERE.function_arn}:1:Environment".encode()
    return orjson.dumps({
        "key": "aws/lambda", "wrapped": secrets._encrypt(AESGCM(kek), own, bound),
        "value": secrets._encrypt(AESGCM(own), plain, bound),
    }).decode()  # fmt: skip


def test_values_and_files_of_the_first_form_are_opened_and_wrapped_anew(tmp_path):
    path = tmp_path / "state.key"
    sealed = of_the_first_form(path, b"plain")
    os.utime(path, (1000, 1000))
    seal = Seal(path)
    (old,) = seal.keys()
    assert old.made_at == 1000
    assert seal.open(sealed, bound_to=HERE) == b"plain"
    assert seal.holder(sealed, bound_to=HERE) == old.id
    with pytest.raises(SealBroken):
        seal.open(sealed, bound_to=Binding(function_arn=HERE.function_arn, version="2"))

    assert seal.add_key()
    again = seal.rewrap(sealed, bound_to=HERE)
    assert seal.rewrap(again, bound_to=HERE) == again
    assert [key.made_at for key in seal.keys()][1:] == [1000]
    seal.drop_keys()
    assert Seal(path).open(again, bound_to=HERE) == b"plain"
    with pytest.raises(SealBroken):
        Seal(path).open(sealed, bound_to=HERE)


def test_a_line_that_was_cut_short_is_no_key(tmp_path):
    path = tmp_path / "key"
    sealed = Seal(path).close(b"plain", bound_to=HERE)
    whole = path.read_bytes()
    Seal(path).add_key()
    both = path.read_bytes()
    assert both.startswith(whole)
    for end in range(len(whole), len(both)):
        path.write_bytes(both[:end])
        assert Seal(path).open(sealed, bound_to=HERE) == b"plain"
    first = tmp_path / "first"
    sealed = of_the_first_form(first, b"plain")
    whole = first.read_bytes()
    Seal(first).add_key()
    both = first.read_bytes()
    for end in range(len(whole), len(both)):
        first.write_bytes(both[:end])
        assert Seal(first).open(sealed, bound_to=HERE) == b"plain"


def test_the_bytes_of_an_old_key_are_overwritten_in_place(tmp_path):
    path = tmp_path / "key"
    Seal(path).close(b"x", bound_to=HERE)
    before, old = path.stat().st_ino, path.read_bytes().split()[0]
    seal = Seal(path)
    seal.add_key()
    newest = seal.keys()[0]
    assert (seal.drop_keys(), seal.keys()) == (1, (newest,))
    assert (path.stat().st_ino, os.listdir(tmp_path)) == (before, ["key"])
    assert old not in path.read_bytes()


def test_a_clock_that_was_set_back_changes_nothing_about_which_key_is_the_newest(tmp_path):
    path = tmp_path / "key"
    Seal(path, now=lambda: 2_000_000_000.0).close(b"x", bound_to=HERE)
    old = Seal(path).keys()[0]
    seal = Seal(path, now=lambda: 1_000_000_000.0)
    seal.add_key()
    assert [key.id for key in seal.keys()][1] == old.id
    assert seal.keys()[0].id != old.id


@given(plains=st.lists(st.binary(max_size=50), min_size=1, max_size=4), turns=st.integers(1, 4), data=st.data())
def test_however_often_keys_change_what_is_wrapped_anew_is_opened(tmp_path_factory, plains, turns, data):
    path = tmp_path_factory.mktemp("turns") / "key"
    values = [Seal(path).close(plain, bound_to=HERE) for plain in plains]
    for _ in range(turns):
        seal = Seal(path)
        parts = [secrets.unwrapped_part(value) for value in values]
        is_fresh = seal.add_key()
        assert is_fresh == (len(seal.keys()) == 2)
        for number in data.draw(st.permutations(range(len(values)))):
            values[number] = seal.rewrap(values[number], bound_to=HERE)
            # at every moment a new start opens everything
            assert [Seal(path).open(value, bound_to=HERE) for value in values] == plains
        assert parts == [secrets.unwrapped_part(value) for value in values], "no value is encrypted again"
        assert {seal.holder(value, bound_to=HERE) for value in values} == {seal.keys()[0].id}
        assert seal.drop_keys() == 1
    assert [Seal(path).open(value, bound_to=HERE) for value in values] == plains


def test_a_value_whose_own_key_kms_wrapped(path):
    own = DataKey(plain=b"k" * 32, wrapped=b"blob", key="arn:aws:kms:us-east-1:000000000000:key/k")
    assert "kkkk" not in repr(own)
    sealed = Seal(path).close(b"plain", bound_to=HERE, data_key=own)
    assert (secrets.kms_key(sealed), secrets.wrapped_key(sealed)) == (own.key, b"blob")
    assert Seal(path).open(sealed, bound_to=HERE, own=own.plain) == b"plain"
    assert Seal(path).rewrap(sealed, bound_to=HERE) == sealed
    assert Seal(path).holder(sealed, bound_to=HERE) == own.key
    for wrong in ({"own": b"j" * 32}, {"own": b"short"}, {}):
        with pytest.raises(SealBroken):
            Seal(path).open(sealed, bound_to=HERE, **wrong)

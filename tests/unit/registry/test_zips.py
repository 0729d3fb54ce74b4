"""Reading packages: what a zip may hold, attacks of every kind, and that nothing but a refusal comes of bytes at random."""

import io
import random
import stat
import struct
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.registry import zips
from bridge.registry.zips import EMPTY, TOO_LARGE, UNREADABLE, ZIPPED_TOO_LARGE, ZipRefused, check_size, read_zip


def packed(*files, method=zipfile.ZIP_DEFLATED):
    """A zip of (name or ZipInfo, content) pairs, whatever they are."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return target.getvalue()


def entry(name, mode=0o644, kind=stat.S_IFREG):
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | mode) << 16
    return info


def raw_name(name, replacement):
    """A zip whose one entry has other bytes for a name than zipfile would write."""
    return packed((name, b"x")).replace(name.encode(), replacement)


def contents(data, **options):
    found = {}
    for piece in read_zip(io.BytesIO(data), **options):
        before = b"" if piece.is_first else found[piece.name][1]
        found[piece.name] = (piece.is_executable, before + piece.data)
    return found


def refusal(data, **options):
    with pytest.raises(ZipRefused) as caught:
        contents(data, **options)
    return str(caught.value)


names = st.from_regex(r"[a-z0-9_-]{1,8}(/[a-z0-9_-]{1,8}){0,3}\.py", fullmatch=True)


@given(
    files=st.dictionaries(names, st.tuples(st.booleans(), st.binary(max_size=4096)), min_size=1, max_size=8),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
)
def test_what_was_packed_is_read(files, method):
    written = packed(*((entry(name, 0o755 if x else 0o644), data) for name, (x, data) in files.items()), method=method)
    if any(other.startswith(f"{name}/") for name in files for other in files):
        assert refusal(written) == UNREADABLE
    else:
        assert contents(written) == files


def test_x_bits_are_kept_and_others_are_not_asked_for():
    found = contents(packed((entry("bin/run", 0o4755), b"#!"), (entry("app.py", 0o600), b"x")))
    assert found == {"bin/run": (True, b"#!"), "app.py": (False, b"x")}


def test_folders_a_prefix_and_zip64_are_read():
    folder = entry("lib/", 0o755, stat.S_IFDIR)
    data = packed((folder, b""), ("lib/a.py", b"a"), ("empty", b""))
    assert contents(data) == {"lib/a.py": (False, b"a"), "empty": (False, b"")}
    assert contents(b"#!/bin/sh\n" + data) == contents(data)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive, archive.open("big.py", "w", force_zip64=True) as file:
        file.write(b"x")
    assert contents(target.getvalue()) == {"big.py": (False, b"x")}


@pytest.mark.parametrize(
    "name",
    ["../x", "/abs", "a/../../x", "a/./b", "./a", "..", ".", "C:x", "a//b", "a\x01b", "a\x7f", "n" * 256, "d/" * 70 + "x",
     "/".join(["n" * 200] * 12)],
)  # fmt: skip
def test_names_that_lead_elsewhere(name):
    assert refusal(packed((name, b"x"))) == UNREADABLE


@pytest.mark.parametrize(
    ("name", "replacement"),
    [("C:_x", b"C:\\x"), ("a_b", b"a\\b"), ("a_b", b"a\0b"), ("é_", b"\xff\xff_"), ("..._x", b"..\\_x")],
)
def test_names_that_no_writer_of_ours_makes(name, replacement):
    assert refusal(raw_name(name, replacement)) == UNREADABLE


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR])
def test_what_is_no_file(kind):
    assert refusal(packed((entry("app.py", 0o777, kind), b"/etc/passwd"))) == UNREADABLE


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_two_entries_share():
    assert refusal(packed(("a.py", b"1"), ("a.py", b"2"))) == UNREADABLE
    assert refusal(packed(("a", b"1"), ("a/b.py", b"2"))) == UNREADABLE
    assert refusal(packed(("a/b.py", b"2"), ("a", b"1"))) == UNREADABLE
    assert refusal(packed((entry("a/", 0o755, stat.S_IFDIR), b""), ("a", b"1"))) == UNREADABLE
    assert contents(packed(("a.py", b"1"), ("A.py", b"2"))).keys() == {"a.py", "A.py"}


def test_a_bomb_by_its_ratio_is_counted_while_read():
    data = packed(("zeros", b"\0" * 4_000_000))
    assert len(data) < 10_000
    assert refusal(data, limit_bytes=3_999_999) == TOO_LARGE
    assert len(contents(data, limit_bytes=4_000_000)["zeros"][1]) == 4_000_000


def test_what_an_entry_says_of_its_size_is_not_believed():
    data = bytearray(packed(("zeros", b"\0" * 100_000)))
    directory = data.rindex(b"PK\x01\x02")
    for at in (22, directory + 24):
        data[at : at + 4] = struct.pack("<I", 10)
    assert refusal(bytes(data)) == UNREADABLE
    for at in (22, directory + 24):
        data[at : at + 4] = struct.pack("<I", 0xF0000000)
    assert refusal(bytes(data)) == TOO_LARGE


def overlapping():
    """Two entries of the directory, one local header: the kernel that both share."""
    body = zlib.compress(b"\0" * 1000)[2:-4]
    check = zlib.crc32(b"\0" * 1000)
    local = b"".join(
        struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 0, check, len(body), 1000, len(name), 0) + name + body
        for name in (b"a",)
    )
    directory = b"".join(
        struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 8, 0, 0, check, len(body), 1000, 1, 0, 0, 0, 0, 0, 0) + name
        for name in (b"a", b"b")
    )
    return local + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 2, 2, len(directory), len(local), 0)


def test_entries_over_one_another():
    assert refusal(overlapping()) == UNREADABLE


def test_too_many_entries_are_not_even_listed(monkeypatch):
    monkeypatch.setattr(zips, "FILES_MAX", 10)
    assert refusal(packed(*((f"{n}.py", b"") for n in range(11)))) == UNREADABLE
    assert len(contents(packed(*((f"{n}.py", b"") for n in range(10))))) == 10


def test_encrypted_and_oddly_compressed():
    data = bytearray(packed(("a.py", b"1")))
    data[6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    assert refusal(bytes(data)) == UNREADABLE
    assert refusal(packed(("a.py", b"1" * 99), method=zipfile.ZIP_LZMA)) == UNREADABLE


def test_what_is_no_zip():
    whole = packed(("app.py", b"x" * 1000), method=zipfile.ZIP_STORED)
    for data in (b"", b"PK", b"hello", b"\x1f\x8b" + b"0" * 99, whole[:-30], whole[100:]):
        assert refusal(data) == UNREADABLE
    assert refusal(whole.replace(b"xxxx", b"yyyy", 1)) == UNREADABLE  # the checksum
    assert refusal(packed()) == EMPTY
    assert refusal(packed((entry("lib/", 0o755, stat.S_IFDIR), b""))) == EMPTY
    assert contents(packed(("inner.zip", whole)))["inner.zip"][1] == whole


def test_size_of_the_zip_itself():
    check_size(52_428_800)
    with pytest.raises(ZipRefused, match=ZIPPED_TOO_LARGE):
        check_size(52_428_801)


@settings(max_examples=300)
@given(seed=st.integers(0, 2**32), flips=st.integers(1, 12), cut=st.integers(0, 40))
def test_damage_is_refused_or_does_no_harm(seed, flips, cut):
    rng = random.Random(seed)
    data = bytearray(packed(("lib/a.py", b"print(1)" * 20), (entry("bin/x", 0o755), b"\0" * 500), ("b", b"")))
    for _ in range(flips):
        data[rng.randrange(len(data))] = rng.randrange(256)
    try:
        found = contents(bytes(data[: len(data) - cut]))
    except ZipRefused:
        return
    assert all(".." not in name.split("/") and not name.startswith("/") for name in found)
    assert sum(len(data) for _, data in found.values()) < 10_000

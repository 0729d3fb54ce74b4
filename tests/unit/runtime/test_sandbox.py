"""The pieces of the sandbox that are plain functions: filter program, neighbours of denied paths, closed folders."""

import struct

import pytest

from bridge.runtime import landlock, mounts, sandbox, seccomp

ALLOW = 0x7FFF0000
EPERM = 0x00050001
ENOSYS = 0x00050026


def run(program, *, architecture, number, argument=0):
    """Interpret the few BPF instructions that the filter uses."""
    memory = {0: number, 4: architecture, 16: argument}
    lines = list(struct.iter_unpack("=HBBI", program))
    at = accumulator = 0
    while True:
        code, true, false, value = lines[at]
        at += 1
        match code:
            case 0x20:
                accumulator = memory[value]
            case 0x06:
                return value
            case 0x15 | 0x35 | 0x45:
                holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: accumulator & value}[code]
                at += true if holds else false


@pytest.mark.parametrize(("machine", "audit", "clone"), [("x86_64", 0xC000003E, 56), ("aarch64", 0xC00000B7, 220)])
def test_filter(machine, audit, clone):
    program = seccomp.program(machine)

    def verdict(number, argument=0, architecture=audit):
        return run(program, architecture=architecture, number=number, argument=argument)

    assert verdict(39 if machine == "x86_64" else 172) == ALLOW  # getpid
    assert verdict(101 if machine == "x86_64" else 117) == EPERM  # ptrace
    assert verdict(442) == EPERM
    assert verdict(435) == ENOSYS  # clone3: libc falls back to clone
    assert verdict(clone, 0x01200011) == ALLOW  # fork
    assert verdict(clone, 0x003D0F00) == ALLOW  # a thread
    assert verdict(clone, 0x10000011) == EPERM  # a user namespace
    assert verdict(39, architecture=0x40000003) == EPERM  # 32 bit
    assert verdict(0x40000000 + 101) == EPERM  # x32


def test_an_unknown_machine_is_said_so():
    with pytest.raises(OSError, match="riscv64"):
        seccomp.program("riscv64")


def test_neighbours_cover_all_but_the_denied(tmp_path):
    for name in ("state/journal", "code", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "state/key").touch()
    (tmp_path / "link").symlink_to(tmp_path / "state")

    found = set(landlock.neighbours([tmp_path / "state"]))

    assert str(tmp_path / "code") in found
    assert str(tmp_path / "other") in found
    assert not any(
        str(tmp_path / "state").startswith(path) or path.startswith(str(tmp_path / "state")) for path in found
    )
    assert str(tmp_path / "link") not in found


def test_first_closed(tmp_path):
    deep = tmp_path / "open" / "closed" / "deep"
    deep.mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "open"):
        folder.chmod(0o755)
    closed_above = mounts.first_closed(str(tmp_path / "open"))
    (tmp_path / "open" / "closed").chmod(0o700)

    assert mounts.first_closed(str(deep)) == (closed_above or str(tmp_path / "open" / "closed"))
    assert mounts.first_closed("/usr/bin") is None


def test_a_step_that_fails_is_a_fact_not_an_error():
    def refuse():
        raise OSError("not here")

    assert sandbox.attempt("thing", refuse) == sandbox.Fact(mechanism="thing", in_force=False, detail="not here")
    assert sandbox.attempt("thing", lambda: None) == sandbox.Fact(mechanism="thing", in_force=True)

"""A function's folder: what changes its digest, what does not, and what is refused."""

import os
import socket
from pathlib import Path

import pytest

from bridge.core.errors import ConfigError
from bridge.registry import packages
from bridge.registry.packages import digest_folder, handler_mistake, has_handler


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "app.py").write_text("a = 1\n")
    (tmp_path / "pkg" / "b.py").write_text("b = 1\n")
    return tmp_path


class TestDigest:
    def test_is_the_same_while_nothing_changes(self, code):
        assert digest_folder(code) == digest_folder(str(code))

    @pytest.mark.parametrize(
        "edit",
        [
            lambda code: (code / "app.py").write_text("a = 22\n"),
            lambda code: (code / "new.py").touch(),
            lambda code: (code / "pkg" / "b.py").unlink(),
            lambda code: (code / "app.py").rename(code / "main.py"),
            lambda code: (code / "app.py").chmod(0o755),
            lambda code: (code / "link.py").symlink_to("gone.py"),
        ],
        ids=["content", "new", "gone", "renamed", "executable", "dangling"],
    )
    def test_changes_with_an_edit(self, code, edit):
        before = digest_folder(code)
        edit(code)

        assert digest_folder(code) != before

    def test_changes_with_an_edit_that_hides(self, code):
        """Same size, and mtime put back, as rsync -t does."""
        before, status = digest_folder(code), (code / "app.py").stat()
        replacement = code / "app.tmp"
        replacement.write_text("a = 2\n")
        replacement.rename(code / "app.py")
        os.utime(code / "app.py", ns=(status.st_atime_ns, status.st_mtime_ns))

        assert digest_folder(code) != before

    def test_what_is_no_code_does_not_count(self, code):
        before = digest_folder(code)
        for name in ("__pycache__", ".git"):
            (code / "pkg" / name).mkdir()
            (code / "pkg" / name / "x.pyc").write_text("x")

        assert digest_folder(code) == before

    def test_links_are_followed(self, code, tmp_path_factory):
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        (elsewhere / "shared.py").write_text("x = 1\n")
        (code / "lib").symlink_to(elsewhere)
        before = digest_folder(code)
        (elsewhere / "shared.py").write_text("x = 22\n")

        assert digest_folder(code) != before

    def test_a_folder_within_itself_ends(self, code):
        (code / "pkg" / "self").symlink_to(code)

        assert digest_folder(code)

    def test_special_files_are_never_opened(self, code):
        os.mkfifo(code / "pipe")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(code / "socket"))

            assert digest_folder(code)

    def test_names_that_are_not_utf8(self, code):
        before = digest_folder(code)
        (code / os.fsdecode(b"\xff.py")).touch()

        assert digest_folder(code) != before


class TestRefused:
    def test_no_folder(self, code):
        with pytest.raises(ConfigError, match=r"/gone: no such file or directory$"):
            digest_folder(code / "gone")

    def test_a_file(self, code):
        with pytest.raises(ConfigError, match=r"/app\.py: not a directory$"):
            digest_folder(code / "app.py")

    def test_too_large(self, code):
        with (code / "big").open("wb") as file:
            file.truncate(packages.UNZIPPED_MAX_BYTES)

        with pytest.raises(ConfigError, match="unzipped size must be smaller than 262144000 bytes"):
            digest_folder(code)

    def test_too_many_files(self, code, monkeypatch):
        monkeypatch.setattr(packages, "FILES_MAX", 10)
        for number in range(10):
            (code / f"f{number}").touch()

        with pytest.raises(ConfigError, match="more than 10 files"):
            digest_folder(code)

    def test_too_deep(self, code):
        (code / Path(*["d"] * 70)).mkdir(parents=True)

        with pytest.raises(ConfigError, match="more than 64 folders deep"):
            digest_folder(code)


class TestHandler:
    @pytest.mark.parametrize(
        "handler", ["app.handler", "a.b.c", "dir/app.handler", "my-app.handler", "os.system", "a1.h_2"]
    )
    def test_forms(self, handler):
        assert handler_mistake(handler) == ""

    @pytest.mark.parametrize(
        "handler",
        [
            "",
            "x",
            ".handler",
            "app.",
            "app..h",
            "/app.h",
            "../app.h",
            "app .h",
            "app.h\n",
            "app.h-1",
            "x" * 127 + ".h",
            "a//b.h",
        ],
    )
    def test_mistakes(self, handler):
        assert handler_mistake(handler).startswith("must be ")

    @pytest.mark.parametrize(
        ("file", "handler"),
        [
            ("app.py", "app.h"),
            ("pkg/b.py", "pkg.b.h"),
            ("pkg/b.py", "pkg/b.h"),
            ("mod/__init__.py", "mod.h"),
            ("native.abi3.so", "native.h"),
            ("old.pyc", "old.h"),
        ],
    )
    def test_where_it_is_found(self, code, file, handler):
        assert file in ("app.py", "pkg/b.py") or not has_handler(code, handler)
        (code / file).parent.mkdir(exist_ok=True)
        (code / file).touch()

        assert has_handler(code, handler)

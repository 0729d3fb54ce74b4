"""Packages of functions and layers, as tests send them."""

import io
import zipfile
from collections.abc import Mapping


def zipped(files: Mapping[str, str | bytes]) -> bytes:
    """Return a zip of no time of ours: the same files are the same bytes. What begins with `#!` can be run."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o755 if content[:2] in ("#!", b"#!") else 0o644) << 16
            archive.writestr(entry, content)
    return target.getvalue()

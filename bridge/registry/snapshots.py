"""A function of the file as a version is made of it: its folder as a zip, its settings by AWS's names."""

import os
import platform
import stat
import uuid
import zipfile
from pathlib import Path
from typing import Any, Final

from bridge.core.errors import ConfigError
from bridge.core.function import DeclaredLayer, FunctionVersion
from bridge.registry.interpreters import INTERPRETER
from bridge.registry.made import MadeVersion
from bridge.registry.packages import UNZIPPED_MAX_BYTES, folder_files
from bridge.registry.roles import made_up

ARCHITECTURE: Final = "arm64" if platform.machine() in {"aarch64", "arm64"} else "x86_64"
_NAMESPACE: Final = uuid.UUID("7a4a5b0e-6f0c-5c58-8d0c-5a1c7a1f5e11")
_CHUNK_BYTES: Final = 1024 * 1024


def zip_folder(folder: Path, target: Path) -> None:
    """Write a folder as a zip that depends on names, x bits and contents alone (blocking).

    Nothing is compressed, so that the same files have the same hash whatever wrote them. Links are followed, as an
    import follows them.

    Raises:
        ConfigError: unreadable, too large, or a file whose name is no text.
        OSError: the zip cannot be written.
    """
    size = 0
    with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as archive:
        for name in sorted(folder_files(folder)):
            entry = zipfile.ZipInfo(name)  # of 1980, as every other one
            size += _add(archive, entry, folder / name, limit=UNZIPPED_MAX_BYTES - size)


def _add(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, *, limit: int) -> int:
    try:
        entry.filename.encode()
        source = path.open("rb")
    except (OSError, UnicodeEncodeError) as error:
        reason = (error.strerror or "unreadable").lower() if isinstance(error, OSError) else "its name is no UTF-8"
        raise ConfigError(f"{os.fsencode(path).decode('utf-8', 'replace')}: {reason}") from error
    size = 0
    with source:
        executable = bool(os.fstat(source.fileno()).st_mode & 0o111)
        entry.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
        entry.create_system = 3  # Unix, whose modes count
        with archive.open(entry, "w") as copy:
            while chunk := source.read(_CHUNK_BYTES):
                size += len(chunk)
                if size > limit:
                    raise ConfigError(f"unzipped size must be smaller than {UNZIPPED_MAX_BYTES} bytes")
                copy.write(chunk)
    return size


def declared_settings(version: FunctionVersion, *, account: str) -> dict[str, Any]:
    """Return what FunctionConfiguration shows of a function of the file, but for names, states and variables."""
    settings: dict[str, Any] = {
        "Role": version.role or made_up(account),
        "Description": "",
        "Timeout": version.timeout_s,
        "TracingConfig": {"Mode": "PassThrough"},
        "Architectures": [ARCHITECTURE],
        "EphemeralStorage": {"Size": version.ephemeral_storage_mb},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "LoggingConfig": version.logging.members(version.name),
    }
    if version.remote is None:
        runtime = version.runtime or INTERPRETER
        settings |= {"Runtime": runtime, "Handler": version.handler, "MemorySize": version.memory_mb}
    if version.dead_letter_target:
        settings["DeadLetterConfig"] = {"TargetArn": version.dead_letter_target}
    if version.vpc is not None:
        settings["VpcConfig"] = version.vpc.members()
    if version.layers:
        settings["Layers"] = [
            {"Arn": _layer_arn(each, version, account), "CodeSize": each.size} for each in version.layers
        ]
    return settings


def _layer_arn(layer: DeclaredLayer, version: FunctionVersion, account: str) -> str:
    """Return what stands for a layer in Lambda's API; of a folder no path: those are the operator's to know."""
    if not layer.is_path:
        return layer.written
    return f"arn:bridge:layer:{version.region}:{account}:{Path(layer.written).name}"


def declared_revision(version: FunctionVersion) -> str:
    """Return the RevisionId of a function of the file."""
    return str(uuid.uuid5(_NAMESPACE, version.revision))


def declared_latest(version: FunctionVersion, *, account: str) -> MadeVersion:
    """Return `$LATEST` of a function of the file, without its code and its variables."""
    return MadeVersion(
        settings=declared_settings(version, account=account),
        package="",
        code_size=0,
        layers=[layer.package for layer in version.layers],
        modified_at="",
        revision_id=declared_revision(version),
        network=version.network,
    )

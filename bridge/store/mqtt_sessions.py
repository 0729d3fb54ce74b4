"""Sessions of MQTT sources: a small file each, replaced as a whole."""

import asyncio
import json
from pathlib import Path
from typing import Final

import structlog

from bridge.core.errors import StoreError, StoreFull
from bridge.core.mqtt import MqttSession
from bridge.store.folder import NO_SPACE, write_durably

log = structlog.get_logger("bridge.store")

_FILE_MAX_BYTES: Final = 16 * 1024 * 1024


class FileMqttSessions:
    """`mqtt.MqttSessions` in a folder of its own, made if need be. Names are those of sources: safe as file names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def load(self, name: str) -> MqttSession | None:
        """Return what was saved; a file that cannot be understood is none: the session is told anew what we want."""
        return await asyncio.to_thread(self._load, name)

    def _load(self, name: str) -> MqttSession | None:
        try:
            with self._path(name).open("rb") as file:
                data = json.loads(file.read(_FILE_MAX_BYTES))
            return MqttSession(
                client_id=str(data["client_id"]), broker=str(data["broker"]), filters=tuple(map(str, data["filters"]))
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"the session of source {name} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            log.warning("mqtt_session_unreadable", source=name, error=repr(error))
            return None

    async def save(self, name: str, session: MqttSession) -> None:
        """Store it. See mqtt.MqttSessions."""
        await asyncio.to_thread(self._save, name, session)

    def _save(self, name: str, session: MqttSession) -> None:
        text = json.dumps({"client_id": session.client_id, "broker": session.broker, "filters": session.filters})
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(self._path(name), text.encode() + b"\n")
        except OSError as error:
            kind = StoreFull if error.errno in NO_SPACE else StoreError
            raise kind(f"the session of source {name} cannot be stored: {error.strerror}") from error

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

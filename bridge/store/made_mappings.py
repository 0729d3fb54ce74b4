"""Event source mappings that Lambda's API made, in SQLite: a row each, beside the functions."""

from bridge.core.errors import StoreCorrupt
from bridge.registry.mapped import MadeMapping, pack, unpack
from bridge.store.sqlite import Database


class SqliteMadeMappings:
    """Keeps them in the database of made functions (`store/functions`), whose schema has their table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> dict[str, MadeMapping]:
        """Return all of them by UUID.

        Raises:
            StoreCorrupt: a row is not what was written.
            StoreTooNew: a newer version wrote one.
        """
        rows = await self._database.read(
            lambda connection: connection.execute("SELECT uuid, document FROM mappings").fetchall()
        )
        try:
            return {uuid: unpack(document) for uuid, document in rows}
        except ValueError as error:
            raise StoreCorrupt(f"{self._database.path.name} holds a mapping that cannot be read: {error}") from error

    async def put(self, made: MadeMapping) -> None:
        """Keep a mapping, in the place of an earlier one of its UUID. Raises StoreError: nothing was written."""
        row = (made.uuid, pack(made))
        await self._database.write(
            lambda connection: connection.execute(
                "INSERT INTO mappings (uuid, document) VALUES (?, ?) "
                "ON CONFLICT (uuid) DO UPDATE SET document = excluded.document",
                row,
            ).close()
        )

    async def drop(self, uuid: str) -> None:
        """Forget one; another one is fine. Raises StoreError: nothing was written."""
        await self._database.write(
            lambda connection: connection.execute("DELETE FROM mappings WHERE uuid = ?", (uuid,)).close()
        )

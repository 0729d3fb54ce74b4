"""The function URLs there are, by id and by the function or alias that each belongs to."""

import secrets
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from bridge.core.spaces import HOME_DEFAULT, Space
from bridge.registry.attached import Documents, DocumentStore, Place, place_arn
from bridge.registry.stored import restored

OPEN: Final = "NONE"
SIGNED: Final = "AWS_IAM"
ID_CHARS: Final = 32
_ALPHABET: Final = string.ascii_lowercase + string.digits


def new_url_id() -> str:
    """Return the id of a new function URL: nobody guesses it."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(ID_CHARS))


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionUrl:
    """One function URL, as it was asked for."""

    id: str
    """First label of its host."""
    function: str
    """ARN, unqualified."""
    qualifier: str = ""
    """An alias; empty: `$LATEST`."""
    auth_type: str
    """NONE or AWS_IAM."""
    invoke_mode: str = "BUFFERED"
    """BUFFERED or RESPONSE_STREAM, whose answers are buffered here as well."""
    cors: Mapping[str, Any] | None = None
    """Cors, by AWS's names; None: the function answers for itself."""
    created_at: str
    """ISO 8601, as AWS writes it."""
    modified_at: str

    @property
    def place(self) -> Place:
        """What it belongs to, whose policy is asked."""
        return self.function, self.qualifier

    @property
    def arn(self) -> str:
        """ARN of what it invokes."""
        return place_arn(self.place)

    @property
    def region(self) -> str:
        """Where its function is: a label of its host."""
        return self.function.split(":")[3]


class FunctionUrls:
    """Function URLs; a change is durable before it counts. Whoever changes them does so one at a time.

    Args:
        store: they are kept there.
        home: the file's name space.
    """

    def __init__(self, store: DocumentStore, home: Space = HOME_DEFAULT) -> None:
        self._home = home
        self._kept = Documents(store)
        self._by_id: dict[str, FunctionUrl] = {}

    async def open(self) -> None:
        """Load what was kept, in the place of what was known. Raises StoreError."""
        await self._kept.open()
        urls = (
            restored(
                FunctionUrl, kept, what=f"the function URL of {place_arn(place)}", function=place[0], qualifier=place[1]
            )
            for place, kept in self._kept.all().items()
        )
        self._by_id = {url.id: url for url in urls}

    def count(self) -> int:
        """Return how many there are."""
        return len(self._by_id)

    def __bool__(self) -> bool:
        """Tell whether there is any."""
        return bool(self._by_id)

    def find(self, url_id: str) -> FunctionUrl | None:
        """Return the one of an id."""
        return self._by_id.get(url_id)

    def get(self, place: Place) -> FunctionUrl | None:
        """Return that of a function or an alias."""
        kept = self._kept.get(place)
        return None if kept is None else self._by_id[kept["id"]]

    def target(self, url: FunctionUrl) -> str:
        """Return what one invokes: `name[:qualifier]`."""
        return self._home.called(url.arn)

    def of_function(self, function: str) -> list[FunctionUrl]:
        """Return those of a function and of its aliases."""
        return [url for url in self._by_id.values() if url.function == function]

    async def put(self, url: FunctionUrl) -> None:
        """Keep one. Raises StoreError."""
        kept = {name: value for name, value in asdict(url).items() if name not in ("function", "qualifier")}
        await self._kept.set(url.place, kept)
        self._by_id[url.id] = url

    async def forget(self, function: str, qualifier: str | None) -> None:
        """Forget that of a qualifier, or, where that is None, all of a function. Raises StoreError."""
        gone = [url for url in self.of_function(function) if qualifier in (None, url.qualifier)]
        await self._kept.forget(function, qualifier)
        for url in gone:
            del self._by_id[url.id]

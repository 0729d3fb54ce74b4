"""Sets of media types as API Gateway's `binaryMediaTypes` writes them."""

from collections.abc import Iterable


class MediaTypes:
    """Media types: `image/png`, all of one kind (`image/*`), or all there are (`*/*`).

    Args:
        types: as they are declared, whatever their case.
    """

    __slots__ = ("_types",)

    def __init__(self, types: Iterable[str] = ()) -> None:
        self._types = frozenset(each.strip().lower() for each in types)

    def hold(self, content_type: str) -> bool:
        """Tell whether a `Content-Type` is among them, its parameters left out; a missing one only in `*/*`."""
        if not self._types:
            return False
        media_type = content_type.partition(";")[0].strip().lower()
        kind = media_type.partition("/")[0]
        return bool(self._types & {media_type, f"{kind}/*", "*/*"})

"""Paths to handlers: literal segments and `{name}` segments, nothing more."""

from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from bridge.api.http import Answer, HttpError, Request, Stream, decode_segment

Handler = Callable[[Request], Awaitable[Answer | Stream]]
_PATH_SHOWN_CHARS: Final = 100
_T = TypeVar("_T")


class Router(Generic[_T]):
    """Finds what answers a request; literal segments win over `{name}` ones."""

    def __init__(self) -> None:
        self._routes: dict[int, list[tuple[tuple[str, ...], dict[str, _T]]]] = {}

    def add(self, method: str, pattern: str, handler: _T) -> None:
        """Answer `method` on `pattern` (`/admin/v1/events/{id}`) with `handler`."""
        segments = tuple(pattern.strip("/").split("/"))
        routes = self._routes.setdefault(len(segments), [])
        for known, methods in routes:
            if known == segments:
                assert method not in methods, f"{method} {pattern} is there twice"
                methods[method] = handler
                return
        routes.append((segments, {method: handler}))
        routes.sort(key=lambda route: tuple(segment.startswith("{") for segment in route[0]))

    def find(self, request: Request) -> _T:
        """Return the handler and set `request.params`.

        Raises:
            HttpError: 404 for the path, 405 for the method.
        """
        segments = request.path.removeprefix("/").split("/")
        for pattern, methods in self._routes.get(len(segments), []):
            params = _match(pattern, segments)
            if params is None:
                continue
            method = "GET" if request.method == "HEAD" else request.method
            if method not in methods:
                allowed = ", ".join(sorted(methods))
                raise HttpError(
                    405, f"{request.method[:20]} is not allowed here; {allowed} is", headers={"allow": allowed}
                )
            request.params = params
            return methods[method]
        raise HttpError(404, f"no such path: {request.path[:_PATH_SHOWN_CHARS]}")


def _match(pattern: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    params: dict[str, str] = {}
    for wanted, given in zip(pattern, segments, strict=True):
        if wanted.startswith("{"):
            if not given:
                return None
            params[wanted[1:-1]] = given
        elif wanted != given:
            return None
    return {name: decode_segment(value) for name, value in params.items()}

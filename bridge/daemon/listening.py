"""What the listeners of a daemon let in, as its file says."""

from typing import TYPE_CHECKING

from bridge.core import limits
from bridge.util.listener import ListenerLimits

if TYPE_CHECKING:
    from bridge.config.settings import ListenSettings


def listener_limits(listen: "ListenSettings", *, connections_max: int) -> ListenerLimits:
    """Return the limits of a listener, which may have so many connections."""
    return ListenerLimits(
        header_s=listen.header_s,
        request_s=listen.request_s,
        keepalive_s=listen.keepalive_s,
        connections_max=connections_max,
        header_max_bytes=limits.HEADER_MAX_BYTES,
        headers_max=limits.HEADERS_MAX,
        path_max_bytes=limits.PATH_MAX_BYTES,
    )

"""How requests to AWS leave: one attempt each, on connections that are kept alive below what NAT forgets."""

import socket
from typing import Any, Final

from bridge import __version__

CONNECT_MAX_S: Final = 5.0
KEEPALIVE_IDLE_S: Final = 45
"""TCP keepalive: NAT forgets after 350 s (boto/botocore#2916, #3140), the kernel alone would wait for 7200 s."""
KEEPALIVE_EVERY_S: Final = 15
KEEPALIVE_PROBES: Final = 4


def one_attempt(*, read_timeout_s: float, pool: int, is_endpoint: bool) -> Any:
    """Return aiobotocore's configuration of a client that tries once: the retries are ours.

    aiobotocore's default ran one invocation of a function five times, its standard mode three times.
    """
    from aiobotocore.config import AioConfig

    own: dict[str, Any] = {}
    if is_endpoint:  # stand-ins have no name per bucket, and few know the newer checksums
        own = {"s3": {"addressing_style": "path"}, "request_checksum_calculation": "when_required"}
    return AioConfig(
        connect_timeout=CONNECT_MAX_S,
        read_timeout=read_timeout_s,
        max_pool_connections=pool,
        retries={"total_max_attempts": 1, "mode": "standard"},
        user_agent=f"bridge/{__version__}",  # botocore writes its own anew for every request, an eighth of its time
        warm_up_loader_caches=True,  # megabytes of JSON, read in a thread
        connector_args={"socket_factory": _kept_alive},
        **own,
    )


def _kept_alive(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, *_ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S),
        (socket.TCP_KEEPINTVL, KEEPALIVE_EVERY_S),
        (socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
    ):
        made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made

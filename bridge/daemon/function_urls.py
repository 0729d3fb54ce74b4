"""Function URLs of a daemon: the application that serves them, and the addresses that they have."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bridge.config.settings import TlsFiles
from bridge.registry.access import AccessKey
from bridge.sources.push.function_urls import FunctionUrlApp
from bridge.sources.push.webhook import WebhookSource

if TYPE_CHECKING:
    from bridge.config.settings import ListenSettings, Settings
    from bridge.core.ports import Clock
    from bridge.daemon.composition import Parts

_USUAL: Final = {"http": 80, "https": 443}


def function_url_app(
    settings: "Settings",
    parts: "Parts",
    webhooks: WebhookSource,
    *,
    keys: Callable[[str], AccessKey | None],
    clock: "Clock",
) -> FunctionUrlApp:
    """Return what the public listener serves: function URLs, and webhooks for all other requests."""
    return FunctionUrlApp(
        webhooks,
        urls=parts.attached.urls,
        policies=parts.attached.policies,
        keys=keys,
        role_of=parts.roles.known,
        intake=parts.intake,
        invoker=parts.service,
        clock=clock,
        domain=str(settings.listen.function_url_domain),
    )


def address_of(listen: "ListenSettings", port: int, url_id: str, region: str) -> str:
    """Return where a function URL is reached; behind a proxy that ends TLS, at the proxy's usual port."""
    scheme = "http" if listen.tls == "off" else "https"
    is_direct = listen.tls == "off" or isinstance(listen.tls, TlsFiles)
    shown = f":{port}" if is_direct and port != _USUAL[scheme] else ""
    return f"{scheme}://{url_id}.lambda-url.{region}.{listen.function_url_domain}{shown}/"

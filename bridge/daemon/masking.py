"""What a file refers to and does not write is masked in every line of the log."""

from bridge.config.functions import FunctionSettings
from bridge.config.settings import Settings
from bridge.util import logs as log_setup


def register_secrets(settings: Settings) -> None:
    """Mask in every log line what the file refers to and does not write."""
    for function in settings.functions.values():
        environment = function.environment if isinstance(function, FunctionSettings) else {}
        for secret in environment.values():
            if not isinstance(secret.written, str):
                log_setup.register_secret(secret.reveal())
    for source in settings.sources.values():
        for value in source.secrets():
            log_setup.register_secret(value)
    for connection in settings.connections.values():
        for value in connection.secrets():
            log_setup.register_secret(value)
    for key in settings.access_keys.values():
        log_setup.register_secret(key.secret.reveal())

"""What must confine functions before the daemon serves: what the file asks for, what code of strangers needs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from bridge.core.errors import ConfigError
from bridge.runtime.confined import LEVELS

if TYPE_CHECKING:
    from bridge.config.settings import Settings

_HINT: Final = "`bridge doctor` shows what is missing"


def check_confinement(
    settings: "Settings", *, level: str, facts: Sequence[tuple[str, bool, str]], is_reachable: bool
) -> None:
    """Refuse to serve with less than is asked for.

    Args:
        settings: of the daemon.
        level: the strongest level in force, of LEVELS.
        facts: mechanism, whether it is in force, detail; measured in a worker.
        is_reachable: the api listens on another address than loopback.

    Raises:
        ConfigError: the level is below `[runtime] sandbox_min`; or functions may be made from elsewhere, and nothing
            keeps their code from the state folder and the key file.
    """
    least = settings.runtime.sandbox_min
    if LEVELS.index(level) < LEVELS.index(least):
        raise ConfigError(f'runtime.sandbox_min = "{least}": workers here are confined by "{level}" only; {_HINT}')
    in_force = {mechanism for mechanism, is_in_force, _ in facts if is_in_force}
    if settings.access_keys and is_reachable and not {"landlock", "own user"} & in_force:
        raise ConfigError(
            "[access_keys] lets others make functions over listen.api, and neither Landlock nor a user of their own "
            f"keeps functions from the state folder here; listen on loopback, or run where one of them is; {_HINT}"
        )

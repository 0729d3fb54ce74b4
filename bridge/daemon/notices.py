"""What the daemon says of functions unasked: code that is lost, concurrency that is short, a port that is closed."""

from collections.abc import Iterable, Iterator, Sequence

from bridge.api.awslambda.concurrency import UNRESERVED_MIN, set_aside
from bridge.config.access import hidden_ports
from bridge.config.settings import Settings
from bridge.core.function import LATEST, Function, space_name
from bridge.daemon.health import Fact
from bridge.registry.interpreters import NO_INTERPRETER
from bridge.runtime.landlock import knows_ports


def lost_functions(functions: Iterable[Function]) -> Iterator[Fact]:
    """Yield the versions that no worker can run though they were made to run here, and what to do."""
    for function in functions:
        for version in (function.latest, *function.versions.values()):
            code, _, text = version.unrunnable.partition(": ")
            if text and code != NO_INTERPRETER:
                name = function.name if version.version == LATEST else f"{function.name}:{version.version}"
                yield f"function {name}", False, text


def concurrency_facts(functions: Iterable[Function], account_concurrency: int) -> Iterator[Fact]:
    """Yield whether functions leave the others the account's unreserved minimum: of the file's and what is short.

    The API refuses what goes below it (semantics 5.6); the file may reserve more, and a reload may come on top of what
    the API had reserved. Of an account that is smaller than the minimum, one execution is enough.
    """
    spaces: dict[str, list[Function]] = {"": []}
    for function in functions:
        spaces.setdefault(space_name(function.name), []).append(function)
    for space, members in spaces.items():
        kept = set_aside(members)
        left = account_concurrency - kept
        text = f"{kept} of the account's {account_concurrency} concurrent executions are reserved for single functions"
        least = UNRESERVED_MIN if account_concurrency >= UNRESERVED_MIN else 1
        if not kept or left >= least:
            if not space:
                yield "concurrency", True, text
            continue
        text += (
            f": {max(0, left)} are left for all others, at least {least} should be; lower reserved_concurrency, or "
            "raise [invocation] account_concurrency"
        )
        yield f"concurrency of {space}" if space else "concurrency", False, text


def port_facts(closed: Sequence[int], settings: Settings) -> Iterator[Fact]:
    """Yield that functions cannot call Lambda's API though the file lets somebody in by now.

    Landlock's rules are those of the process that all workers come from: they are never lifted.

    Args:
        closed: ports that the sandbox closed at the start.
        settings: the file in force.
    """
    if closed and not hidden_ports(settings) and knows_ports():
        text = (
            f"functions cannot connect to port {closed[0]} until a restart: at the start nobody could call Lambda's "
            "API there (no [access_keys.X])"
        )
        yield "api port", False, text


def notices(functions: Sequence[Function], settings: Settings, *, closed: Sequence[int]) -> list[Fact]:
    """Return all that there is to say of a file that has been taken."""
    return [
        *concurrency_facts(functions, settings.invocation.account_concurrency),
        *port_facts(closed, settings),
    ]

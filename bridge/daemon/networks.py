"""What is said of a function's network: which one it has, and what AWS would take of its subnets for it."""

from collections.abc import Iterable
from typing import Any, Final, Protocol

from bridge.api.awslambda.concurrency import set_aside
from bridge.core.errors import ConfigError
from bridge.core.function import Function, FunctionVersion, space_name
from bridge.core.network import NONE, VPC, interfaces, projected_addresses, vpc_id
from bridge.runtime.pool import WorkerPool

_HINT: Final = "`bridge doctor` shows what is missing"


class Described(Protocol):
    """Says which network a version has."""

    def described(self, version: FunctionVersion) -> str:
        """Return it for people; empty: the machine's, and nothing else was asked for."""
        ...


def network_view(
    function: Function, functions: Iterable[Function], *, networks: Described, account_concurrency: int
) -> dict[str, Any]:
    """Return what is shown of a function's network, empty where it asks for none.

    Its peak is what it may run at once: the concurrency reserved for it, else what the account has left for all that
    reserve none. So the figure is the one to plan subnets by, and not what has happened so far.
    """
    latest = function.latest
    found: dict[str, Any] = {}
    if text := networks.described(latest):
        found["network"] = text
    if latest.vpc is not None:
        peak = function.reserved_concurrency
        if peak is None:
            space = space_name(function.name)
            others = [other for other in functions if space_name(other.name) == space]
            peak = max(0, account_concurrency - set_aside(others))
        found |= {
            "vpc_id": vpc_id(latest.space),
            "network_interfaces": interfaces(latest.vpc, latest.space),
            "peak_concurrency": peak,
            "projected_addresses": projected_addresses(peak, latest.memory_mb),
        }
    return found


async def check_networks(functions: Iterable[Function], pool: WorkerPool) -> None:
    """Find out which networks can be had, and refuse functions that are not to run without theirs.

    Raises:
        ConfigError: a function of the file asks for isolation that cannot be had here.
    """
    versions = [function.latest for function in functions]
    await pool.networks.prepare(versions)
    lacking = next((detail for what, ok, detail in pool.sandbox_facts() if what == "network namespace" and not ok), "")
    for version in versions:
        why = {NONE: lacking, VPC: pool.networks.trouble}.get(version.network, "")
        if why:
            raise ConfigError(
                f'functions.{version.name}.network = "{version.network}" cannot be had here: {why}; {_HINT}'
            )

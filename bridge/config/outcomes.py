"""What is wrong between the targets of records and the rest of a file: functions that are their own, no connection."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from pydantic_core import PydanticCustomError

from bridge.config.mistakes import Loc
from bridge.config.streams import connection_of_aws, connection_of_cluster
from bridge.config.targets import OF_FUNCTIONS, read_target
from bridge.config.tree import table, tables, text
from bridge.core.function import ACCOUNT_DEFAULT, REGION_DEFAULT, function_arn
from bridge.core.mapping import parse_source
from bridge.core.outcome import LOCAL

Finding: TypeAlias = tuple[Loc, str]


def mistakes(data: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield functions that are their own destination, and targets that no connection reaches."""
    region, account = text(data, "region", REGION_DEFAULT), text(data, "account", ACCOUNT_DEFAULT)
    for name, function in tables(data, "functions"):
        here = function_arn(name, region=region, account=account)
        own = {here, text(function, "arn", here)}
        for loc, target in targets_of(name, function):
            if _unqualified(target) in {_unqualified(arn) for arn in own}:
                yield loc, "You can't specify the function as a destination for itself."
            yield from reaches(loc, target, text(function, "connection"), data)


def targets_of(name: str, function: Mapping[str, Any]) -> Iterator[tuple[Loc, str]]:
    """Yield where a function's records are sent, and where that is written."""
    invoke, loc = table(function, "event_invoke"), ("functions", name)
    for key in ("on_success", "on_failure"):
        if (target := text(invoke, key)) and target != LOCAL:
            yield (*loc, "event_invoke", key), target
    if target := text(table(function, "dead_letter_config"), "target_arn"):
        yield (*loc, "dead_letter_config", "target_arn"), target


def reaches(loc: Loc, target: str, connection: str, data: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield why a target cannot be reached by the connection written beside it; what is no target is told elsewhere."""
    try:
        arn = read_target(target, services=OF_FUNCTIONS)
    except PydanticCustomError:
        return
    if arn is None:
        yield from connection_of_cluster(loc, parse_source(target).connection, data)
    elif connection and arn.service != "lambda":
        yield from connection_of_aws(loc, connection, data, arn=str(arn) if arn.region else "")


def _unqualified(arn: str) -> str:
    return ":".join(arn.split(":")[:7])

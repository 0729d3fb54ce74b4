"""Baseline: a filter pattern walked anew for every event, as one writes it from the guide; prints {"match_us", "miss_us"}."""

import argparse
import json
from functools import partial

from tests.bench.variants.filters import MATCHING, MISSING, PATTERN, timed


def matches(pattern: dict, event: object) -> bool:
    """Tell whether `event` has what the object `pattern` asks for."""
    if isinstance(event, list):
        return any(matches(pattern, element) for element in event)
    members = event if isinstance(event, dict) else {}
    for name, wanted in pattern.items():
        if name == "$or":
            if not any(matches(choice, event) for choice in wanted):
                return False
        elif isinstance(wanted, dict):
            if not matches(wanted, members.get(name)):
                return False
        elif not holds(wanted, members, name):
            return False
    return True


def holds(conditions: list, members: dict, name: str) -> bool:
    """Tell whether one of `conditions` holds for a member."""
    if name not in members:
        return {"exists": False} in conditions
    value = members[name]
    values = value if isinstance(value, list) else [value]
    for condition in conditions:
        for each in values:
            if meets(condition, each):
                return True
    return False


def meets(condition: object, value: object) -> bool:
    """Tell whether a scalar meets one condition."""
    if not isinstance(condition, dict):
        return type(condition) is type(value) and condition == value
    [(operator, operand)] = condition.items()
    if operator == "exists":
        return operand != isinstance(value, dict)
    if operator == "prefix":
        return isinstance(value, str) and value.startswith(operand)
    if operator == "suffix":
        return isinstance(value, str) and value.endswith(operand)
    if operator == "equals-ignore-case":
        return isinstance(value, str) and value.lower() == operand.lower()
    if operator == "anything-but":
        return value not in (operand if isinstance(operand, list) else [operand])
    if operator == "numeric":
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return all(compare(operand[i], value, operand[i + 1]) for i in range(0, len(operand), 2))
    raise ValueError(f"unknown operator {operator}")


def compare(operator: str, value: float, bound: float) -> bool:
    """Compare as `numeric` names it."""
    if operator == "=":
        return value == bound
    if operator == "<":
        return value < bound
    if operator == "<=":
        return value <= bound
    return value > bound if operator == ">" else value >= bound


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    assert matches(PATTERN, MATCHING)
    assert not matches(PATTERN, MISSING)
    work = partial(matches, PATTERN)
    found = {
        "match_us": timed(work, MATCHING, seconds=options.seconds / 2),
        "miss_us": timed(work, MISSING, seconds=options.seconds / 2),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()

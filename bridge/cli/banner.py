"""What `bridge run` says once it listens: where, and what to try next."""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.core.invocation import InvocationType
from bridge.util.text import escape

if TYPE_CHECKING:
    from bridge.daemon import Ready

_ROUTES_MAX = 8
_TRIAL = ".bridge-local"
_FOUND = (".bridge", _TRIAL)
"""State folders that commands typed here look into by themselves."""


def show(ready: "Ready") -> None:
    """Print the banner to standard output; the log goes to standard error."""
    lines = [
        f"bridge is ready ({ready.took_s * 1000:.0f} ms)",
        f"  webhooks  {ready.public}",
        f"  api       {ready.api}   (health, metrics, administration)",
        f"  state     {_short(ready.state)}{_beside(ready.state)}",
    ]
    for route in ready.routes[:_ROUTES_MAX]:
        target = route.function or "its mappings"
        methods = "/".join(route.methods) or ("POST" if route.invocation_type is InvocationType.EVENT else "any")
        lines.append(f"  {methods:8}  {escape(route.path)} -> {target} ({route.invocation_type.value})")
    if len(ready.routes) > _ROUTES_MAX:
        lines.append(f"  … and {len(ready.routes) - _ROUTES_MAX} more routes")
    lines += [
        f"  {receiver.kind:8}  {escape(receiver.place)} -> {receiver.function or 'its mappings'}"
        for receiver in ready.receivers[:_ROUTES_MAX]
    ]
    if len(ready.receivers) > _ROUTES_MAX:
        lines.append(f"  … and {len(ready.receivers) - _ROUTES_MAX} more sources")
    for mapping in ready.mappings[:_ROUTES_MAX]:
        state = "" if mapping.enabled else " (disabled)"
        lines.append(f"  mapping   {escape(mapping.source)} -> {mapping.function}{state}")
    if len(ready.mappings) > _ROUTES_MAX:
        lines.append(f"  … and {len(ready.mappings) - _ROUTES_MAX} more mappings")
    if ready.watched:
        names = ", ".join(ready.functions) or "no function"
        lines.append(f"  watching  {names}: an edit counts from the next event")
    lines += _next_steps(ready)
    click.echo("\n".join(lines))
    sys.stdout.flush()


def _beside(state: Path) -> str:
    """Return what to know about the state folder of `bridge run --local`."""
    if _short(state) != _TRIAL:
        return ""
    return f"   (not .bridge; when a daemon runs on that too, say `bridge --state {_TRIAL} …`)"


def _next_steps(ready: "Ready") -> list[str]:
    steps: list[str] = []
    activate = Path(sys.prefix) / "bin" / "activate"
    # Debian's iproute2 has a `bridge` as well: the environment's own must come first.
    if activate.exists() and os.environ.get("VIRTUAL_ENV") != sys.prefix:
        steps.append(f". {shlex.quote(_short(activate))}")
    if _short(ready.state) not in _FOUND:
        steps.append(f"export BRIDGE_STATE={shlex.quote(str(ready.state))}")
    for route in ready.routes[:_ROUTES_MAX]:
        if route.scheme != "none":
            continue  # its sender signs; curl does not
        if route.invocation_type is InvocationType.EVENT:
            steps.append(f'curl -d \'{{"name":"Ada"}}\' {ready.public}{route.path}')
        elif route.invocation_type is InvocationType.REQUEST_RESPONSE:
            steps.append(f"curl '{ready.public}{route.path}?name=Ada'")
    local = [mapping.name for mapping in ready.mappings if mapping.source.startswith("local://")]
    steps += [f'bridge put {name} \'{{"user":"ada","page":"/home"}}\'' for name in local[:_ROUTES_MAX]]
    if ready.mappings:
        steps.append("bridge mappings list")
    steps.append("bridge events list")
    if ready.functions:
        steps.append(f"bridge logs {ready.functions[0]} -f")
    return ["", "In another terminal:", *(f"  {step}" for step in steps), "", "Ctrl-C stops it."]


def _short(path: Path) -> str:
    """Return a path as one would type it here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)

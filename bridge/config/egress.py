"""`[egress]`: the hosts that callers of Lambda's API may have the daemon connect to."""

from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field

from bridge.config.section import Section, listed
from bridge.config.values import refuse
from bridge.core.egress import ALLOW_MAX, ENTRY_MAX_CHARS, Egress, parse_allowed


def _checked(written: str) -> str:
    try:
        parse_allowed(written)
    except ValueError as error:
        refuse(str(error))
    return written


HostEntry: TypeAlias = Annotated[str, Field(max_length=ENTRY_MAX_CHARS), AfterValidator(_checked)]


class EgressSettings(Section):
    """`[egress]`: what the daemon connects to for callers of Lambda's API; the file's own sources are not bound."""

    allow: tuple[HostEntry, ...] = listed(
        "Hosts that callers of Lambda's API may name (Kafka brokers): names, *.NAME, addresses, networks, with :port "
        "or without. Link-local and metadata addresses are never reached.",
        max_length=ALLOW_MAX,
    )

    def value(self) -> Egress:
        """Return what it allows."""
        return Egress(tuple(map(parse_allowed, self.allow)))

"""Spill: the local dead-letter queue as a destination, fsynced before it says yes."""

from bridge.core.invocation import DeadLetter
from bridge.core.ports import DeadLetters


class Spill:
    """`ports.Destination` over the dead-letter store: the default, and the last resort of the others."""

    def __init__(self, dead_letters: DeadLetters) -> None:
        self._dead_letters = dead_letters

    async def send(self, letter: DeadLetter) -> None:
        """Store it; sending the same letter again replaces it."""
        await self._dead_letters.put(letter)

"""What was received and waits for its batch, by group; a group of a FIFO queue is in one batch at a time (pure)."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bridge.core.queues import Message


@dataclass(slots=True, kw_only=True, eq=False)
class Batch:
    """The messages of one invocation and what was tried with them."""

    messages: list[Message]
    setbacks: int = 0
    """Throttles and service errors in a row; a function error ends a batch."""
    due: float = 0.0
    """Monotonic time from which it may run."""
    reason: str = ""
    """Why it waits, in one line."""

    def __len__(self) -> int:
        return len(self.messages)

    @property
    def groups(self) -> set[str]:
        """The message groups in it."""
        return {message.group for message in self.messages}


@dataclass(slots=True, eq=False)
class _Group:
    """Waiting messages of a group, in order; of a standard queue there is one, and it is never busy."""

    messages: deque[Message] = field(default_factory=deque)
    is_busy: bool = False


class Buffer:
    """Forms batches.

    Args:
        is_fifo: whether groups keep their order: a group that is in a batch gives no other one until `release`.
        size_max: messages of a batch.
        bytes_max: bytes of a batch's fragments and the separators between them; a single larger one goes alone.
        window_s: seconds that messages are gathered, from the arrival of the oldest.
    """

    def __init__(self, *, is_fifo: bool, size_max: int, bytes_max: int, window_s: float) -> None:
        self._is_fifo = is_fifo
        self._size_max = size_max
        self._bytes_max = bytes_max
        self._window_s = window_s
        self._groups: dict[str, _Group] = {}
        """In the order of their turns."""
        self._count = self._bytes = 0
        self._ready = self._ready_bytes = 0
        """Of groups that are not busy."""

    def __len__(self) -> int:
        return self._count

    @property
    def bytes(self) -> int:
        """Bytes of all fragments."""
        return self._bytes

    @property
    def ready(self) -> int:
        """How many messages are of groups that are not busy."""
        return self._ready

    def put(self, message: Message) -> None:
        """Add one that was just received, behind what is there."""
        name = message.group if self._is_fifo else ""
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group()
        group.messages.append(message)
        self._counted(group, 1, len(message.fragment))

    def due(self, now: float) -> float | None:
        """Return when the next batch may run (monotonic; past: now), None when nothing is ready."""
        if not self._ready:
            return None
        if not self._window_s or self._ready >= self._size_max or self._is_heavy():
            return now
        oldest = min(
            group.messages[0].received_at for group in self._groups.values() if group.messages and not group.is_busy
        )
        return oldest + self._window_s

    def _is_heavy(self) -> bool:
        """Whether what is ready fills a batch by its weight."""
        return self._ready_bytes + self._ready - 1 >= self._bytes_max

    def take(self) -> Batch | None:
        """Take the next batch, its groups busy from now on; None when nothing is ready."""
        taken: list[Message] = []
        size = -1
        for name, group in list(self._groups.items()):
            if group.is_busy or not group.messages:
                continue
            is_full = False
            before = len(taken)
            while group.messages and not is_full:
                weight = len(group.messages[0].fragment) + 1
                is_full = len(taken) >= self._size_max or (bool(taken) and size + weight > self._bytes_max)
                if not is_full:
                    size += weight
                    taken.append(self._pop(group))
            if self._is_fifo and len(taken) > before:
                self._set_busy(group, is_busy=True)
                self._groups[name] = self._groups.pop(name)  # its next turn comes behind the others'
            if is_full or len(taken) >= self._size_max:
                break
        return Batch(messages=taken) if taken else None

    def release(self, groups: Iterable[str]) -> None:
        """A batch with these groups has ended and its messages are settled: their next ones may run."""
        for name in groups:
            group = self._groups.get(name)
            if group is None:
                continue
            if group.is_busy:
                self._set_busy(group, is_busy=False)
            self._tidy(name)

    def drop(self, message: Message) -> list[Message]:
        """Take out a waiting message and, of a FIFO queue, those of its group behind it: nothing may overtake it."""
        name = message.group if self._is_fifo else ""
        group = self._groups.get(name)
        if group is None or message not in group.messages:
            return []
        if self._is_fifo:
            at = group.messages.index(message)
            dropped = [group.messages.pop() for _ in range(len(group.messages) - at)][::-1]
        else:
            group.messages.remove(message)
            dropped = [message]
        for each in dropped:
            self._counted(group, -1, -len(each.fragment))
        self._tidy(name)
        return dropped

    def drop_groups(self, groups: Iterable[str]) -> list[Message]:
        """Take out everything that waits in these groups of a FIFO queue, in order."""
        dropped: list[Message] = []
        for name in groups:
            group = self._groups.get(name) if self._is_fifo else None
            while group is not None and group.messages:
                dropped.append(self._pop(group))
            self._tidy(name)
        return dropped

    def drop_all(self) -> list[Message]:
        """Take out everything, each group in order."""
        dropped: list[Message] = []
        for group in self._groups.values():
            while group.messages:
                dropped.append(self._pop(group))
        self._groups = {name: group for name, group in self._groups.items() if group.is_busy}
        return dropped

    def select(self, wanted: Callable[[Message], bool]) -> list[Message]:
        """Return the waiting messages that `wanted` wants."""
        return [message for group in self._groups.values() for message in group.messages if wanted(message)]

    def _tidy(self, name: str) -> None:
        """Forget a group of which nothing waits or runs."""
        group = self._groups.get(name)
        if group is not None and not group.messages and not group.is_busy:
            del self._groups[name]

    def _pop(self, group: _Group) -> Message:
        message = group.messages.popleft()
        self._counted(group, -1, -len(message.fragment))
        return message

    def _counted(self, group: _Group, count: int, size: int) -> None:
        self._count += count
        self._bytes += size
        if not group.is_busy:
            self._ready += count
            self._ready_bytes += size

    def _set_busy(self, group: _Group, *, is_busy: bool) -> None:
        sign = -1 if is_busy else 1
        group.is_busy = is_busy
        self._ready += sign * len(group.messages)
        self._ready_bytes += sign * sum(len(message.fragment) for message in group.messages)

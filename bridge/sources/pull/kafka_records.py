"""The records of one answer to a fetch as aiokafka's parser makes them: by the batch, nothing done per record."""

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.errors import CorruptRecordException


class ParsedRecords:
    """Stands in for aiokafka's PartitionRecords, whose checks and ConsumerRecord take longer than the parsing itself.

    The same records in the same order: aborted transactions, control batches and what lies before the position are
    left out, and `next_fetch_offset` says after each record, and after each batch, where the next fetch begins.
    """

    __slots__ = ("_iterator", "_last", "_next", "_plain")

    def __init__(self, plain: Any) -> None:
        """Take over from a PartitionRecords that nothing was read of; its own rules for transactions stay in use."""
        self._plain = plain
        self._next: int = plain.next_fetch_offset
        self._last: Any = None
        self._iterator: Iterator[Any] | None = self._records()

    @property
    def next_fetch_offset(self) -> int:
        """Return where the next fetch begins if no more is read of this."""
        return self._next if self._last is None else self._last.offset + 1

    def __iter__(self) -> Iterator[Any]:
        """Go on where the last iteration was left."""
        return self._iterator or iter(())

    def _records(self) -> Iterator[Any]:
        for batch in self._batches():
            records = batch
            # Old formats and the batch that the position lies in: what comes before it is passed over.
            if batch.producer_id is None or batch.base_offset < self._next:
                first = self._next
                records = (record for record in batch if record.offset >= first)
            for record in records:
                self._last = record
                yield record
            self._last, self._next = None, batch.next_offset
        self._iterator = None  # breaks the cycle

    def _batches(self) -> Iterator[Any]:
        plain = self._plain
        batches, is_committed = plain._records, plain._isolation_level == READ_COMMITTED  # noqa: SLF001
        while batches.has_next():
            batch = batches.next_batch()
            if plain._check_crcs and not batch.validate_crc():  # noqa: SLF001
                raise CorruptRecordException(f"Invalid CRC - {plain._tp}")  # noqa: SLF001
            if (is_committed and self._is_aborted(batch)) or batch.is_control_batch:
                self._next = batch.next_offset
            else:
                yield batch

    def _is_aborted(self, batch: Any) -> bool:
        """As PartitionRecords has it, with its own lists."""
        plain, producer = self._plain, batch.producer_id
        if producer is None:
            return False
        plain._consume_aborted_up_to(batch.base_offset)  # noqa: SLF001
        aborted = plain._aborted_producers  # noqa: SLF001
        if batch.is_control_batch and plain._contains_abort_marker(batch):  # noqa: SLF001
            aborted.discard(producer)
        return bool(batch.is_transactional) and producer in aborted

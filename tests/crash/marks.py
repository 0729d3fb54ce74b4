"""Outside checker of what a consumer group committed, against what was handled by then; imports nothing of bridge.

marks.jsonl     {"t","committed": {partition: offset},"lines": lines of handled.jsonl once the brokers had answered}
handled.jsonl   as the ledger's, with "partition" and "offset"
"""

import collections
import sys


def check(samples, records, handled, settled):
    """Judge a run's commits: those past an open record, those that went back.

    Args:
        samples: lines of marks.jsonl, oldest first.
        records: {partition: offsets of its records, rising}.
        handled: lines of handled.jsonl, oldest first.
        settled: (partition, offset) of the records that are dead letters.
    """
    first = {}
    for line, h in enumerate(handled):
        if h["ok"]:
            first.setdefault((h["partition"], h["offset"]), line)
    # By partition: its offsets, and at which line of the ledger the whole prefix up to each was finished.
    prefix = {}
    for partition, offsets in records.items():
        highest = -1
        for offset in offsets:
            finished = -1 if (partition, offset) in settled else first.get((partition, offset), sys.maxsize)
            highest = max(highest, finished)
            prefix.setdefault(partition, []).append((offset, highest))
    past_open = went_back = 0
    examples = []
    last = collections.defaultdict(int)
    for sample in samples:
        for name, committed in sample["committed"].items():
            partition = int(name)
            went_back += committed < last[partition]
            last[partition] = committed
            highest = max((line for offset, line in prefix.get(partition, ()) if offset < committed), default=-1)
            if highest >= sample["lines"]:
                past_open += 1
                examples.append({"partition": partition, "committed": committed, "t": sample["t"]})
    return {
        "samples": len(samples),
        "committed_past_open": past_open,
        "committed_back": went_back,
        "past_open_examples": examples[:5],
    }


def selftest():
    """The checker is tested first: planted commits past an open record and back must show."""

    def handled(offset, ok=True):
        return {"partition": 0, "offset": offset, "ok": ok}

    def at(committed, lines):
        return {"t": 0, "committed": {"0": committed}, "lines": lines}

    records = {0: [0, 1, 3]}
    run = [handled(0), handled(1), handled(3)]
    assert check([at(0, 0), at(1, 1), at(4, 3)], records, run, set())["committed_past_open"] == 0
    assert check([at(1, 0)], records, run, set())["committed_past_open"] == 1
    assert check([at(4, 2)], records, run, set())["committed_past_open"] == 1
    assert check([at(4, 2)], records, run, {(0, 3)})["committed_past_open"] == 0
    assert check([at(2, 2)], records, [handled(0), handled(1, ok=False)], set())["committed_past_open"] == 1
    assert check([at(2, 2), at(1, 2)], records, run, set())["committed_back"] == 1
    # Above a hole, and one handled out of its turn: only the whole prefix counts.
    assert check([at(3, 1)], records, [handled(1), handled(0)], set())["committed_past_open"] == 1
    assert check([at(3, 2)], records, [handled(1), handled(0)], set())["committed_past_open"] == 0
    print("marks selftest ok")

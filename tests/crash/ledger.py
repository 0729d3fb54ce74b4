"""Outside checker in the style of Jepsen's total-queue, with order per key; imports nothing of bridge.

Three ledgers, JSON lines:
sent.jsonl     {"id","key","seq","outcome": "ok"|"fail"|"unknown"}   by the load generator (ok = it got its 202)
handled.jsonl  {"id","key","seq","attempt","ok": true|false,"t"}     on disk before the handler returns
dlq.jsonl      {"id","reason","t"}                                   read back from the dead letters; t: dead since
"""

import collections
import json
import sys
from pathlib import Path


def load(path):
    """Return the lines of a ledger; the last one may be torn by a kill -9."""
    lines = []
    for line in Path(path).read_bytes().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def check(sent, handled, dead):
    """Judge a run: what was promised and is nowhere, what came twice, what came out of order."""
    attempts = collections.Counter(s["id"] for s in sent)
    acked = {s["id"] for s in sent if s["outcome"] == "ok"}
    refused = {s["id"] for s in sent if s["outcome"] == "fail"}
    succeeded = collections.Counter(h["id"] for h in handled if h["ok"])
    letters = collections.Counter(d["id"] for d in dead)
    out = set(succeeded) | set(letters)
    lost = acked - out
    unexpected = out - set(attempts)
    rejected_but_handled = refused & out
    duplicated = sum(n - 1 for i, n in succeeded.items() if i in attempts)
    out_of_order, replayed_back = order(handled, dead)
    return {
        "attempts": len(sent),
        "acked": len(acked),
        "handled_ok": len(succeeded),
        "dlq": len(letters),
        "lost": len(lost),
        "unexpected": len(unexpected),
        "duplicated": duplicated,
        "dlq_duplicated": sum(n - 1 for n in letters.values()),
        "in_both": sum(1 for i in letters if succeeded[i]),
        "recovered": len((out - acked - refused) & set(attempts)),
        "rejected_but_handled": len(rejected_but_handled),
        "out_of_order": out_of_order,
        "replayed_back": replayed_back,
        "dup_ratio": round(duplicated / max(1, len(succeeded)), 4),
        "valid": not (lost or unexpected or out_of_order or rejected_but_handled),
        "lost_ids": sorted(lost)[:20],
    }


def order(handled, dead=()):
    """Count first successes after a later one of their key, and (allowed) repeats that go back.

    What was a dead letter had its turn: that it comes again and succeeds, because of a kill, is a repeat.
    """
    out_of_order = replayed_back = 0
    seen = set()
    highest = {}
    ended = {}
    for d in dead:
        if "t" in d:
            ended[d["id"]] = min(d["t"], ended.get(d["id"], d["t"]))
    for h in handled:
        if not h["ok"]:
            continue
        key = h["key"]
        if h["seq"] < highest.get(key, -1):
            if h["id"] in seen or ended.get(h["id"], h.get("t", 0)) < h.get("t", 0):
                replayed_back += 1
            else:
                out_of_order += 1
        seen.add(h["id"])
        highest[key] = max(highest.get(key, -1), h["seq"])
    return out_of_order, replayed_back


def selftest():
    """The checker is tested first: planted losses, repeats and reversals must show."""

    def sent(i, outcome="ok"):
        return {"id": i, "key": "k", "seq": i, "outcome": outcome}

    def handled(i, ok=True, t=0):
        return {"id": i, "key": "k", "seq": i, "ok": ok, "t": t}

    assert check([sent(1), sent(2)], [handled(1), handled(2)], [])["valid"]
    assert check([sent(1), sent(2)], [handled(1)], [])["lost"] == 1
    assert not check([sent(1), sent(2)], [handled(1)], [])["valid"]
    assert check([sent(1), sent(2)], [handled(1)], [{"id": 2}])["valid"]
    assert check([sent(1)], [handled(1), handled(1)], [])["duplicated"] == 1
    assert check([sent(1)], [handled(1), handled(1)], [])["valid"]
    assert check([sent(1), sent(2)], [handled(2), handled(1)], [])["out_of_order"] == 1
    repeated = [handled(1), handled(2), handled(1), handled(2), handled(3)]
    assert check([sent(1), sent(2), sent(3)], repeated, [])["out_of_order"] == 0
    late = [handled(2, t=2), handled(1, t=3)]
    assert check([sent(1), sent(2)], late, [{"id": 1, "t": 1}])["replayed_back"] == 1
    assert check([sent(1), sent(2)], late, [{"id": 1, "t": 1}])["valid"]
    assert check([sent(1), sent(2)], late, [{"id": 1, "t": 4}])["out_of_order"] == 1
    assert check([sent(1), sent(2)], late, [{"id": 1}])["out_of_order"] == 1
    assert check([sent(1)], [handled(9)], [])["unexpected"] == 1
    assert check([sent(1, "unknown")], [handled(1)], [])["recovered"] == 1
    assert check([sent(1, "unknown")], [], [])["valid"]
    assert not check([sent(1, "fail")], [handled(1)], [])["valid"]
    assert check([sent(1)], [handled(1, ok=False)], [])["lost"] == 1
    print("ledger selftest ok")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        selftest()
    else:
        verdict = check(*map(load, sys.argv[1:4]))
        print(json.dumps(verdict))
        sys.exit(0 if verdict["valid"] else 1)

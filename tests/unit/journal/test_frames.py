"""A frame holds a whole record, belongs to one place, and shows every changed bit."""

import struct
import uuid
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.invocation import InvocationType
from bridge.journal.frames import (
    FrameBroken,
    check,
    encode,
    frame_length,
    id_bytes,
    id_text,
    place_seed,
    row_of,
    unpack,
)
from tests.unit.journal.support import framed, record

SALT = b"saltsalt"


@given(
    payload=st.binary(max_size=2000),
    context=st.binary(max_size=200),
    source=st.text(max_size=40),
    function=st.text(max_size=40),
    delivery=st.text(max_size=60),
    key=st.binary(max_size=255),
    kind=st.sampled_from(InvocationType),
    offset=st.integers(64, 2**32 - 1),
    segment=st.integers(1, 2**31),
)
def test_frames_round_trip_and_belong_to_their_place(
    payload, context, source, function, delivery, key, kind, offset, segment
):
    original = record(
        3,
        payload=payload,
        client_context=context,
        source=source,
        function=function,
        delivery_id=delivery,
        key=key,
        invocation_type=kind,
    )
    seed = place_seed(segment, SALT)
    head_bytes, length, row = encode(original, seed, offset, 7, 1_003_000)
    frame = head_bytes + payload
    head = check(frame + b"what follows", seed=seed, offset=offset)

    assert unpack(frame + b"what follows", position=9) == replace(original, received_at=1003.0, position=9)
    assert (head.length, head.synced_end, frame_length(frame), len(frame)) == (length, 7, length, length)
    assert row_of(frame, head, offset=offset) == row
    for other_seed, other_offset in (
        (place_seed(segment + 1, SALT), offset),
        (place_seed(segment, b"SALTSALT"), offset),
        (seed, offset ^ 64),
    ):
        with pytest.raises(FrameBroken):
            check(frame, seed=other_seed, offset=other_offset)


def test_every_flipped_bit_is_seen():
    frame = framed(record(1, delivery_id="d", client_context=b"{}"), 5, 64)
    for place in range(len(frame) * 8):
        damaged = bytearray(frame)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(FrameBroken):
            check(bytes(damaged), seed=5, offset=64)


def test_every_shorter_frame_is_seen():
    frame = framed(record(1), 5, 64)
    for length in range(len(frame)):
        with pytest.raises(FrameBroken):
            check(frame[:length], seed=5, offset=64)


@given(st.uuids())
def test_ids_round_trip(value: uuid.UUID):
    assert id_bytes(str(value)) == value.bytes
    assert id_text(value.bytes) == str(value)


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "no uuid"},
        {"id": "12"},
        {"id": ""},
        {"source": "s" * 65_536},
        {"delivery_id": "d" * 65_536},
        {"key": b"k" * 256},
    ],
)
def test_what_cannot_be_written_is_refused(fields):
    with pytest.raises(ValueError, match=r"hexadecimal|UUID|longer"):
        encode(record(1, **fields), 5, 64, 0, 1)


def test_a_frame_from_before_there_were_keys_is_read():
    """What was padding then is the length of a key now: a zero."""
    seed = place_seed(1, SALT)
    head, _, _ = encode(record(1, payload=b"p", delivery_id="d", client_context=b"c"), seed, 64, 7, 1_003_000)
    old = struct.Struct("<IIIIQIBxHHH16s")

    assert old.pack(*old.unpack_from(head)) == head[: old.size]
    assert unpack(head + b"p", position=1).key == b""

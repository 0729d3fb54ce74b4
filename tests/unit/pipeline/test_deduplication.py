"""What is remembered of deliveries: for how long, how many, and what goes first."""

from bridge.pipeline.deduplication import DeliveryIndex

IDS = [f"00000000-0000-4000-8000-{number:012d}" for number in range(4)]


def index_of(count: int, *, ids_max: int) -> DeliveryIndex:
    index = DeliveryIndex(ids_max=ids_max)
    for number in range(count):
        index.add(DeliveryIndex.key("hooks", str(number)), IDS[number], received_at=float(number))
    return index


def test_a_delivery_is_known_within_its_window_alone():
    index = index_of(1, ids_max=9)
    key = DeliveryIndex.key("hooks", "0")

    assert IDS[0] == index.find(key, now=9.9, window_s=10)
    assert index.find(key, now=10.0, window_s=10) is None
    assert index.find(DeliveryIndex.key("others", "0"), now=1.0, window_s=10) is None


def test_above_the_bound_the_oldest_is_forgotten():
    index = index_of(4, ids_max=3)

    known = [index.find(DeliveryIndex.key("hooks", str(number)), now=4.0, window_s=99) for number in range(4)]
    assert [None, *IDS[1:]] == known
    assert 3 == len(index)


def test_what_is_too_old_is_forgotten_a_bounded_number_at_once():
    index = index_of(4, ids_max=9)
    index.forget(before=3.0, steps_max=2)
    assert 2 == len(index)
    index.forget(before=3.0)

    assert 1 == len(index)

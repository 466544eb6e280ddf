import threading
import time

import pytest

from neuron_atlas.tasks.subject.prefetch import prefetch
from tests.waiting import PATIENCE_S, wait_until


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_everything_comes_in_the_order_of_the_items(threads):
    def slow_at_first(item: int) -> int:
        time.sleep(0.02 if item < 3 else 0)
        return item * item

    assert list(prefetch(range(20), slow_at_first, threads, ahead=6)) == [i * i for i in range(20)]


def test_no_more_than_asked_for_is_prepared_in_advance():
    prepared: list[int] = []
    stream = prefetch(range(100), prepared.append, threads=2, ahead=5)
    next(stream)
    wait_until(lambda: len(prepared) == 6)
    time.sleep(0.1)
    assert len(prepared) == 6


def test_preparing_goes_on_while_the_caller_is_busy():
    first_is_out, second_is_in = threading.Event(), threading.Event()

    def prepare(item: int) -> None:
        if item == 1:
            assert first_is_out.wait(PATIENCE_S)
            second_is_in.set()

    stream = prefetch(range(2), prepare, threads=1, ahead=2)
    next(stream)
    first_is_out.set()
    assert second_is_in.wait(PATIENCE_S)
    list(stream)


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_is_raised_at_its_items_turn(threads):
    def prepare(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item

    stream = prefetch(range(5), prepare, threads, ahead=5)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(stream)

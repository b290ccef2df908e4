"""Long work of the loader is done in steps."""

from lora_router.adapters.slices import Slices, Work
from tests.fleet import ManualClock


def test_work_may_begin_further_work() -> None:
    clock, done = ManualClock(), []
    slices = Slices(clock)

    def work(name: str, *further: str) -> Work:
        for each in further:
            slices.do(work(each))
        yield
        done.append(name)

    slices.do(work("a", "b", "c"))
    clock.advance(1.0)
    slices.do(work("d"))
    clock.advance(1.0)
    assert done == ["a", "b", "c", "d"]
    assert not slices

"""Requests that the engine model aborts."""

from tests.unit.simulator.engine_run import ask, make


def test_an_abort_takes_effect_at_the_next_step() -> None:
    run = make()
    leaving, staying = ask("a1"), ask("a2")
    run.engine.submit(leaving)
    run.engine.submit(staying)
    run.step()
    run.engine.abort(leaving)
    assert leaving in run.engine.running
    run.step()
    assert run.engine.running == [staying]
    assert list(run.engine.listed) == ["a2"]
    assert leaving.generated == 1


def test_the_last_request_aborted_leaves_one_empty_step() -> None:
    run = make()
    request = ask("a1")
    run.engine.submit(request)
    run.step()
    run.engine.abort(request)
    assert run.step()
    assert not run.engine.listed
    assert not run.step()


def test_a_waiting_request_can_be_aborted_and_never_runs() -> None:
    run = make(max_loras=1)
    running, waiting = ask("a1"), ask("a2")
    run.play([running, waiting], until=0.02)
    run.engine.abort(waiting)
    while run.step():
        pass
    assert waiting.generated == 0
    assert run.engine.loads == 1


def test_an_abort_while_the_adapter_is_loaded_frees_the_slot() -> None:
    run = make(disk_load_seconds=1.5, loads_block=False)
    request = ask("a1")
    run.engine.submit(request)
    run.step()
    run.engine.abort(request)
    run.step()
    assert run.engine.active == set()
    assert not run.engine.listed


def test_an_abort_after_the_end_does_nothing() -> None:
    run = make()
    request = ask("a1", tokens=1)
    run.play([request])
    run.engine.abort(request)
    assert not run.step()


def test_an_abort_frees_the_slot_for_the_next_adapter() -> None:
    run = make(max_loras=1)
    hog, waiting = ask("a1", tokens=10_000), ask("a2", tokens=1)
    run.play([hog, waiting], until=0.05)
    run.engine.abort(hog)
    run.step()
    assert waiting.finished

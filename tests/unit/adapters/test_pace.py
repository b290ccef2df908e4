from lora_router.adapters.pace import StallBudget


def test_a_pod_that_was_stalled_loads_again_when_the_share_of_its_time_allows_it() -> None:
    budget = StallBudget(0.0, share=0.05, burst=1.0)
    budget.spend(2.0, 0.0)
    assert budget.ready_at(0.0) == 20.0
    assert budget.ready_at(20.1) == 20.1

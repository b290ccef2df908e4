"""Which worker gets a connection, and which one gives one away."""

from lora_router.workers.placement import Share, in_order, too_many


def share(number: int, connections: int, streams: int = 0, *, ready: bool = True) -> Share:
    return Share(
        number,
        ready=ready,
        responsive=True,
        connections=connections,
        received=connections,
        placed=connections,
        streams=streams,
    )


def numbers(shares: list[Share]) -> list[int]:
    return [each.number for each in in_order(shares)]


def test_the_worker_with_the_fewest_connections_comes_first() -> None:
    assert numbers([share(1, 3), share(2, 1), share(3, 2)]) == [2, 3, 1]


def test_of_workers_with_as_many_connections_the_one_with_fewer_streams_comes_first() -> None:
    """Envoy's health checks are a connection, too. It has hardly any streams."""
    assert numbers([share(1, 1, streams=80), share(2, 1, streams=0)]) == [2, 1]


def test_connections_that_are_on_their_way_count() -> None:
    one, two = share(1, 0), share(2, 0)
    one.placed += 1
    assert numbers([one, two]) == [2, 1]
    two.placed += 2
    assert numbers([one, two]) == [1, 2]


def test_a_worker_that_is_not_ready_gets_none_while_another_is() -> None:
    assert numbers([share(1, 0, ready=False), share(2, 9)]) == [2]


def test_before_any_worker_is_ready_all_get_connections_to_answer_health_checks() -> None:
    assert numbers([share(1, 0, ready=False), share(2, 0, ready=False)]) == [1, 2]


def test_a_worker_that_does_not_report_gets_none() -> None:
    silent = share(1, 0)
    silent.responsive = False
    assert numbers([silent, share(2, 9)]) == [2]
    assert numbers([silent]) == []


def test_a_worker_without_file_descriptors_gets_none() -> None:
    short = share(1, 0)
    short.short = True
    assert numbers([short, share(2, 9)]) == [2]
    assert too_many([short, share(2, 9)]) is None
    assert numbers([short]) == []


def test_a_worker_that_was_started_again_gets_connections_of_others() -> None:
    loaded, fresh = share(1, 4, streams=90), share(2, 0)
    assert too_many([loaded, fresh]) is loaded


def test_one_connection_more_is_not_too_many() -> None:
    assert too_many([share(1, 2), share(2, 1)]) is None
    assert too_many([share(1, 2)]) is None


def test_nothing_moves_while_connections_are_on_their_way() -> None:
    loaded, fresh = share(1, 4), share(2, 0)
    fresh.placed += 1
    assert too_many([loaded, fresh]) is None

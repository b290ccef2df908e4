"""What a run of the bench measures."""

from bench.plan import BASE, Plan, Point


def test_each_dimension_is_varied_alone_and_the_first_point_is_not_measured_twice() -> None:
    plan = Plan(bodies=(1_000, 220_000), connections=(1, 64), pods=(8, 100), algorithms=("random",))

    assert plan.points() == [
        BASE,
        Point(body_bytes=220_000),
        Point(connections=1),
        Point(pods=100),
        Point(algorithm="random"),
    ]

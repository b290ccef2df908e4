"""A pod may have the name that the server of another pod would get. Both are used."""

from lora_router.discovery.rank_names import told_apart
from lora_router.fleet.pod import Pod
from tests.fleet import make_pod


def one(name: str) -> tuple[Pod, ...]:
    return (make_pod(6, name=name, uid=name),)


def ranks(name: str, numbers: tuple[int, ...] = (0, 1)) -> tuple[Pod, ...]:
    return tuple(
        make_pod(5, name=f"{name}-rank-{number}", address=f"10.0.0.5:800{number}", uid=name)
        for number in numbers
    )


def names(found: dict[str, tuple[Pod, ...]]) -> dict[str, list[str]]:
    return {name: [pod.name for pod in pods] for name, pods in found.items()}


def test_servers_of_a_pod_have_the_names_that_other_endpoint_pickers_give_them() -> None:
    found = {"ml/e": ranks("ml/e"), "ml/worker-rank-7": one("ml/worker-rank-7")}

    assert told_apart(found, found) == found


def test_while_a_pod_has_such_a_name_the_servers_get_others() -> None:
    found = {"ml/e": ranks("ml/e"), "ml/e-rank-0": one("ml/e-rank-0")}

    apart = told_apart(found, found)

    assert names(apart) == {"ml/e-rank-0": ["ml/e-rank-0"], "ml/e": ["ml/e:rank-0", "ml/e:rank-1"]}
    assert [pod.address for pod in apart["ml/e"]] == ["10.0.0.5:8000", "10.0.0.5:8001"]


def test_the_names_do_not_depend_on_which_pod_came_first() -> None:
    objects = {"ml/e": ranks("ml/e"), "ml/e-rank-1": one("ml/e-rank-1")}
    apart = {"ml/e": ["ml/e:rank-0", "ml/e:rank-1"], "ml/e-rank-1": ["ml/e-rank-1"]}

    assert names(told_apart({"ml/e-rank-1": one("ml/e-rank-1")}, objects)) == apart
    assert names(told_apart({"ml/e": ranks("ml/e")}, objects)) == {"ml/e": apart["ml/e"]}


def test_when_that_pod_leaves_the_servers_get_their_names_again() -> None:
    apart = told_apart({"ml/e-rank-0": ()}, {"ml/e": ranks("ml/e")})

    assert names(apart) == {"ml/e": ["ml/e-rank-0", "ml/e-rank-1"], "ml/e-rank-0": []}


def test_a_pod_of_such_a_name_with_several_servers_takes_no_name() -> None:
    found = {"ml/e": ranks("ml/e"), "ml/e-rank-0": ranks("ml/e-rank-0")}

    assert told_apart(found, found) == found

"""What the specification of a pod says about the adapters of its server."""

import argparse
import shlex
import subprocess
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.discovery.pod_object import PodObject
from lora_router.discovery.pod_ports import PortRules
from lora_router.discovery.pod_translation import to_pods
from lora_router.discovery.server_options import read_options
from lora_router.discovery.shell_words import MAX_SCRIPT, UNKNOWN, commands
from lora_router.fleet.lora_spec import ASSUMED, COMMAND_LINE, LABEL, UNLIMITED, LoraSpec
from lora_router.fleet.pod import Pod
from lora_router.yaml_document import parse_yaml
from tests.examples import examples

PODS = parse_yaml((Path(__file__).parents[2] / "data" / "vllm-pods.yaml").read_bytes())
assert isinstance(PODS, list)


def translated(
    spec: object, labels: dict[str, str] | None = None
) -> tuple[tuple[Pod, ...], tuple[str, ...]]:
    document = {
        "metadata": {"name": "vllm-0", "namespace": "ml", "labels": labels},
        "spec": spec,
        "status": {"phase": "Running", "podIP": "10.0.0.7"},
    }
    found = msgspec.json.decode(msgspec.json.encode(document), type=PodObject)
    return to_pods(found, PortRules())


def spec_of(spec: object, labels: dict[str, str] | None = None) -> LoraSpec:
    [pod], _ = translated(spec, labels)
    return pod.lora


def container(*args: str, **more: object) -> dict[str, object]:
    """Return the specification of a pod with one container."""
    return {
        "containers": [{"name": "vllm", "image": "vllm/vllm-openai", "args": list(args), **more}]
    }


@pytest.mark.parametrize("pod", PODS, ids=[pod["about"] for pod in PODS])
def test_a_pod_says_what_is_known_of_its_server(pod: dict[str, dict[str, object]]) -> None:
    expect = pod["expect"]
    [found], problems = translated(pod["spec"])

    size = expect.get("host_memory")
    assert found.lora == LoraSpec(
        slots=expect.get("slots"),  # type: ignore[arg-type]
        host_memory=UNLIMITED if size == "unlimited" else size,  # type: ignore[arg-type]
        source=ASSUMED if size is None else COMMAND_LINE,
        preloaded=tuple(expect.get("preloaded", ())),  # type: ignore[arg-type]
        loads_when_listed=expect.get("loads_when_listed", True),  # type: ignore[arg-type]
    )
    assert len(problems) == ("problem" in expect)
    assert all(problem.startswith(str(expect["problem"])) for problem in problems)


class TestLabel:
    """The label ``lora-router/max-cpu-loras`` takes precedence over the command line."""

    @pytest.mark.parametrize(("text", "size"), [("48", 48), ("unlimited", UNLIMITED)])
    def test_a_size(self, text: str, size: int) -> None:
        labels = {"lora-router/max-cpu-loras": text}
        found = spec_of(container("--max-loras=4", "--max-cpu-loras=8"), labels)
        assert (found.slots, found.host_memory, found.source) == (4, size, LABEL)

    @pytest.mark.parametrize("text", ["", "0", "-3", "4.5", "many", "1000001", "٤"])
    def test_what_is_no_size_is_a_problem(self, text: str) -> None:
        labels = {"lora-router/max-cpu-loras": text}
        [pod], [problem] = translated(container("--max-loras=4"), labels)
        assert pod.lora.host_memory == 4
        assert problem == (
            f"label lora-router/max-cpu-loras={text!r} must be a number of adapters from 1 to "
            "1000000, or unlimited; it is ignored"
        )

    def test_an_engine_of_the_label_that_the_command_line_is_not_of(self) -> None:
        labels = {"model.aibrix.ai/engine": "sglang"}
        assert spec_of(container("--max-loras=4"), labels) == LoraSpec(loads_when_listed=True)


def test_no_message_repeats_a_value() -> None:
    _, problems = translated(
        container(
            "--max-loras=$(KEY)", command=["vllm"], env=[{"name": "KEY", "value": "sk-secret"}]
        )
    )
    assert len(problems) == 1
    assert "sk-secret" not in problems[0]


def test_a_command_that_is_too_long_is_not_read() -> None:
    assert spec_of(container("--max-loras=4", "x" * MAX_SCRIPT)).slots is None


# The options


OPTIONS = ("max-loras", "max-cpu-loras", "max-loras-per-batch", "max-loaded-loras")
NUMBERS = st.integers(1, 1_000_000)


def written(name: str, number: int, style: int) -> list[str]:
    """Return an option as it may be written."""
    name = name.replace("-", "_") if style & 1 else name
    return [f"--{name}={number}"] if style & 2 else [f"--{name}", str(number)]


@given(
    st.lists(st.tuples(st.sampled_from(OPTIONS), NUMBERS, st.integers(0, 3)), max_size=8),
    st.lists(st.text(st.characters(codec="ascii", exclude_characters="-"), max_size=5), max_size=3),
)
def test_options_are_read_as_argparse_reads_them(
    given_options: list[tuple[str, int, int]], others: list[str]
) -> None:
    words = [word for option in given_options for word in written(*option)]
    parser = argparse.ArgumentParser(add_help=False)
    for name in OPTIONS:
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("others", nargs="*")
    known = parser.parse_args([word.replace("_", "-") for word in words] + ["--", *others])

    found = read_options(words + others)
    for name in OPTIONS:
        assert found.numbers.get(name) == getattr(known, name.replace("-", "_"))
    assert not found.unreadable


@pytest.mark.parametrize(
    ("beginning", "size"), [("--max-cpu-lora", 8), ("--max_cp", 8), ("--max-c", None)]
)
def test_an_unambiguous_beginning_of_a_name_stands_for_it(beginning: str, size: int | None) -> None:
    assert read_options([beginning, "8"]).numbers.get("max-cpu-loras") == size


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--lora-modules", "a=/a", "b=/b", "--port", "1"], ("a", "b")),
        (["--lora-modules", "a=/a", "--lora-modules", "b=/b"], ("b",)),
        (["--lora-modules=a=/a=b"], ("a",)),
        (["--lora-modules", ""], ()),
        (["--lora-modules"], ()),
        (["--lora-modules", '[{"name": "a"}, {"lora_name": "b"}, {"path": "/c"}, 7]'], ("a", "b")),
        (["--lora-modules", '{"name": 7}', "{", '{"name": "d", "path": "/d"}'], ("d",)),
        (["--lora-modules", f"{UNKNOWN}=/a", "b=/b"], ("b",)),
    ],
)
def test_adapters_that_are_loaded_at_the_start(words: list[str], names: tuple[str, ...]) -> None:
    assert read_options(words).names == names


@given(st.lists(st.text(max_size=20)))
def test_no_words_are_an_error(words: list[str]) -> None:
    read_options(words)


# Scripts


def words_of(script: str, **variables: str) -> list[list[str]]:
    return list(commands(script, variables))


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("a b; c & d | e && f", [["a", "b"], ["c"], ["d"], ["e"], ["f"]]),
        ("a \\\n b # c\nd", [["a", "b"], ["d"]]),
        ("a 'b  $X' \"c $X\" d\\ e", [["a", "b  $X", "c 1", "d e"]]),
        ("a $X ${X} ${Y:-2} ${Y-'3'} ${X:-4}", [["a", "1", "1", "2", "3", "1"]]),
        ("a $Y ${Y} ${#X} $(b c) `d` $1 $$", [["a", *[UNKNOWN] * 7]]),
        ('a "$(b)"c $', [["a", f"{UNKNOWN}c", "$"]]),
        ("Z=5 a; export V=6 W=7; b $Z$V$W", [["a"], ["b", "567"]]),
        (": ${Z:=5}; a $Z", [[":", "5"], ["a", "5"]]),
        ("Z=5; Z=6; a $Z", [["a", UNKNOWN]]),
        ("Z=5; Z=5; a $Z", [["a", "5"]]),
        ("a $S", [["a", "x", "y"]]),
        ("a >b 2>&1 <c d 2>/dev/null e", [["a", "d", "e"]]),
        ("a <<EOF\nb --c\nEOF\nd", [["a"], ["d"]]),
        ("a <<-'EOF' b\n\tb --c\n\tEOF\nd", [["a"], ["d"]]),
        ("z=(a b); c", [["a", "b"], ["c"]]),
        ("(a; b) c", [["a"], ["b"], ["c"]]),
        ("a 'b", [["a", "b"]]),
        ('a "b', [["a", "b"]]),
        ("", []),
    ],
)
def test_the_words_of_a_script(script: str, found: list[list[str]]) -> None:
    assert words_of(script, X="1", S=" x  y ") == found


WORDS = st.text(st.characters(codec="ascii", exclude_characters="\0\r"), max_size=8)


@given(st.lists(WORDS, min_size=1))
def test_quoted_words_are_what_was_quoted(words: list[str]) -> None:
    assert words_of("x " + shlex.join(words)) == [["x", *words]]


@given(st.text(max_size=60), st.dictionaries(st.sampled_from("ABC"), st.text(max_size=8)))
def test_no_script_is_an_error(script: str, variables: dict[str, str]) -> None:
    for command in commands(script, variables):
        assert command
    spec_of(container(command=["sh", "-c", script]))


PIECES = st.sampled_from(
    ["+a", ".7", " ", "'b c'", '"d $A"', "$A", "${B}", "${C:-e f}", "\\ ", '"${A}"', "--x=", "\\\n"]
)


@pytest.mark.slow
@examples(30)
@given(st.lists(st.lists(PIECES, max_size=8).map("".join), min_size=1, max_size=20))
def test_a_real_shell_reads_the_same_words(arguments: list[str]) -> None:
    variables = {"A": "1 2", "B": "3"}
    lines = [f"p {each}" for each in arguments]
    script = 'p() { printf "%s\\0" "$#" "$@"; }\n' + "\n".join(lines)
    out = subprocess.run(
        ["/bin/sh", "-c", script], env=variables, capture_output=True, check=True
    ).stdout
    real = iter(out.decode().split("\0"))
    expected = [["p", *(next(real) for _ in range(int(next(real))))] for _ in lines]
    assert words_of("\n".join(lines), **variables) == expected

"""The npm clients ``openai`` and ``@anthropic-ai/sdk``."""

import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("openai", reason="`make test-clients` installs the clients")

from tests.clients.service import MODELS, Service

FOLDER = Path(__file__).parent / "javascript"
NODE = shutil.which("node")

pytestmark = [
    pytest.mark.skipif(NODE is None, reason="the npm clients need node 20 or newer, and npm"),
    pytest.mark.skipif(
        not (FOLDER / "node_modules").is_dir(), reason="`make test-clients` installs npm's clients"
    ),
]


def run(service: Service, call: str) -> None:
    """Make a call with each model."""
    assert NODE is not None
    done = subprocess.run(
        [NODE, "calls.mjs", service.url, call],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("call", "requests"),
    [
        ("chat", 1),
        ("chat_with_half_an_emoji", 1),
        ("chat_stream", 1),
        ("chat_tools", 1),
        ("embeddings", 1),
        ("transcription", 1),
        ("messages", 3),
        ("count_tokens", 1),
    ],
)
def test_a_call_reaches_a_pod_with_its_model(service: Service, call: str, requests: int) -> None:
    run(service, call)

    assert service.models == [model for model in MODELS for _ in range(requests)]


def test_azure(service: Service) -> None:
    run(service, "azure")

    assert service.models == [model for model in MODELS if "/" not in model]


@pytest.mark.parametrize("call", ["models", "models_of_anthropic", "unknown_model"])
def test_a_call_that_the_router_answers(service: Service, call: str) -> None:
    run(service, call)

    assert service.calls == []


@pytest.mark.parametrize("call", ["responses", "files_and_batches"])
def test_what_names_an_id_reaches_the_pod_that_made_it(service: Service, call: str) -> None:
    run(service, call)

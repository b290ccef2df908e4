"""What the tests of clients talk to: a router behind a real Envoy, and three pods."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.clients.api_pod import ApiPod, Call

MODELS = ("base", "sql", "chat", "team/law")
"""A model of all pods, of one pod, of two pods; and one with a slash in its name."""
REPEATS = 20
"""How often a test repeats what would succeed by chance on one of three pods."""


def make_pods() -> list[ApiPod]:
    """Return pods that do not serve the same models."""
    return [
        ApiPod("pod-1", ("sql",)),
        ApiPod("pod-2", ("chat",)),
        ApiPod("pod-3", ("chat", "team/law")),
    ]


@dataclass(frozen=True)
class Service:
    """An address for clients, and what the pods behind it saw."""

    url: str
    """Without a path, as Anthropic's clients want it."""
    pods: Sequence[ApiPod]

    @property
    def openai_url(self) -> str:
        """The address that OpenAI's clients want."""
        return f"{self.url}/v1"

    @property
    def calls(self) -> list[Call]:
        """All requests that pods saw in this test, in order."""
        calls = (call for pod in self.pods for call in pod.calls)
        return sorted(calls, key=lambda call: call.order)

    @property
    def models(self) -> list[str]:
        """The models that these requests name."""
        return [call.model for call in self.calls]

    def forget(self) -> None:
        """Forget the calls, but not what the pods made."""
        for pod in self.pods:
            pod.calls.clear()

    def check(self) -> None:
        """Each request reached a pod that serves its model and has what it names."""
        served = {pod.name: pod.models for pod in self.pods}
        for call in self.calls:
            assert not call.model or call.model in served[call.pod], call
            assert call.status < 400, call

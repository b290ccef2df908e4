"""Published policies that read prompts, in conversations with Envoy."""

import json

import pytest

from lora_router.routing.prefix_cache import PrefixCache
from lora_router.routing.weighted_scores import WeightedScores
from tests.fleet import make_fleet
from tests.unit.extproc.conversation import Conversation, request_body, request_headers
from tests.unit.routing.choices import options

PROSE = "The clerk counted the columns once more, and wrote down what was left. " * 4


def turn(number: int, chat: str) -> bytes:
    """Return the body of the nth request of a chat, which has all turns before it."""
    messages = [{"role": "system", "content": f"{chat}: {PROSE}"}]
    for before in range(number):
        messages.append({"role": "user", "content": f"question {before}: {PROSE}"})
        messages.append({"role": "assistant", "content": f"answer {before}: {PROSE}"})
    messages.append({"role": "user", "content": f"question {number}: {PROSE}"})
    return json.dumps({"model": "base", "messages": messages}).encode()


@pytest.mark.parametrize("policy", [PrefixCache, WeightedScores])
def test_the_turns_of_a_chat_go_to_one_pod_and_chats_to_several(
    policy: type[PrefixCache | WeightedScores],
) -> None:
    server = Conversation(make_fleet(4), algorithm=policy(options()))

    def ask(body: bytes) -> str:
        before = {state: state.in_flight for state in server.fleet}
        server.session = server.another()
        server.say(request_headers(), request_body(body))
        (pod,) = [state.pod.name for state in server.fleet if state.in_flight > before[state]]
        server.session.end()
        return pod

    homes = {chat: {ask(turn(number, chat)) for number in range(3)} for chat in "abcdefghijkl"}

    assert all(len(pods) == 1 for pods in homes.values())
    assert len(set.union(*homes.values())) > 1

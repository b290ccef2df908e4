"""The answers to the messages with which a routed request has arrived so far.

Envoy waits for an answer to each message: to the headers, and to each piece of the body. One of
them, which ``routed_answer`` makes, names the pod. The others let the body pass, or replace it.
"""

from lora_router.extproc import answers
from lora_router.extproc.body_pieces import request_pieces
from lora_router.extproc.collected_body import CollectedBody
from lora_router.extproc.outputs import Output, Outputs
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.renamed import Renaming, streamed_pieces
from lora_router.extproc.stream_setup import Setup

_NO_BODY = ProcessingMode.NONE
_FULL_DUPLEX = ProcessingMode.FULL_DUPLEX_STREAMED


def answers_to_body(
    answer: bytes, renaming: Renaming | None, collected: CollectedBody | None
) -> list[Output]:
    """Return the answers to a body whose headers were answered before it arrived.

    Args:
        answer: The answer that names the pod.
        renaming: What changes because the pod is asked for another model, if it is.
        collected: The pieces of the body; ``None``: it came as one.
    """
    if renaming is not None:
        answer = renaming.to_whole_body(answer)
    outputs: list[Output] = [answer]
    if collected is not None:
        # The first piece is answered.
        if renaming is not None and renaming.body is not None:
            outputs += streamed_pieces(renaming.body, collected.count)[1:]
        else:
            outputs += [answers.CONTINUE_BODY] * (collected.count - 1)
    return outputs


def answers_to_headers(
    answer: bytes, renaming: Renaming | None, collected: CollectedBody, setup: Setup
) -> list[Output]:
    """Return the answers to the headers, and to the pieces of a body that have arrived.

    Args:
        answer: The answer that names the pod.
        renaming: What changes because the pod is asked for another model, if it is.
        collected: The pieces of the body.
        setup: How Envoy sends bodies.
    """
    body = None
    if renaming is not None:
        answer = renaming.to_headers(answer)
        body = renaming.body
    if not setup.collects:
        # The headers decided, so Envoy need not send the body.
        answer += answers.asked_modes(_NO_BODY, setup.response_body_mode)
    outputs: list[Output] = [answer]
    if body is not None:
        outputs += _other_body(body, collected, setup)
    elif setup.body_mode != _FULL_DUPLEX:
        outputs += [answers.CONTINUE_BODY] * collected.count
    elif collected.count:
        outputs += request_pieces(collected.whole(), ends=collected.ends)
    return outputs


def _other_body(body: bytes, collected: CollectedBody, setup: Setup) -> Outputs:
    if setup.body_mode == _FULL_DUPLEX:
        return request_pieces(body, ends=collected.ends)
    return streamed_pieces(body, collected.count)

"""What Envoy is told, where it is put together from parts."""

from hypothesis import example, given
from hypothesis import strategies as st

from lora_router.extproc.answers import chosen, chosen_again
from lora_router.extproc.messages import HeaderNames

NAMES = HeaderNames()


@given(st.text(st.characters(codec="utf-8"), max_size=300), st.booleans())
@example("", True)
@example("a", True)
@example("b" * 128, False)
@example("數" * 40, True)
def test_an_answer_of_parts_is_the_one_that_protobuf_writes(model: str, to_body: bool) -> None:
    said = (NAMES, "10.0.0.1:8000", "lora-placement", model, to_body)
    assert chosen_again(*said) == chosen(*said)

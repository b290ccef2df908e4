"""Finds the bytes of a request body that name the model, to put another name in their place.

Everything else in the body stays as it is, byte for byte. A JSON document is not decoded and
encoded again, because numbers, escapes and the order of fields would change.

Text searches find what may be the field. Whether it is the field of the document, and not of an
object inside it, is left to the reader that routing uses: it reads a copy in which every find has
its number for a value, and so tells the number of the one that counts.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import islice

import msgspec

from lora_router.extproc.body import BodyError, BodyErrorKind, is_form, read_body
from lora_router.extproc.events import Message
from lora_router.extproc.lenient_json import LenientJsonError, in_utf8, rewritten

MAX_FINDS = 1024
"""How often the key ``model`` may stand in a body, at any depth, whose model is to be replaced."""
MAX_REPEATED = 4
"""How often it may stand in the document itself, or in a form. The last one counts. Each costs a
pass over the whole body."""
MAX_ESCAPES = 100_000
"""How often a letter of the key may be written as an escape, anywhere in the body. Programs do not
write letters so."""

_VALUE = rb'[ \t\n\r]*:[ \t\n\r]*("[^"\\]*+(?:\\.[^"\\]*+)*+"|null)'
_PLAIN = re.compile(rb'"model"' + _VALUE, re.DOTALL)
_ESCAPE = rb"\u006"
_O, _D, _E, _L = rb"(?:o|\\u006[fF])", rb"(?:d|\\u0064)", rb"(?:e|\\u0065)", rb"(?:l|\\u006[cC])"
_ESCAPED = re.compile(
    rb"\\u006(?:"
    rb'[dD](?<="\\u006.)' + _O + _D + _E + _L + rb"|"
    rb'[fF](?<="m\\u006.)' + _D + _E + _L + rb"|"
    rb'4(?<="mo\\u006.)' + _E + _L + rb"|"
    rb'5(?<="mod\\u006.)' + _L + rb"|"
    rb'[cC](?<="mode\\u006.)'
    rb')"' + _VALUE,
    re.DOTALL,
)
"""The key with at least one escape, from the first one on. It begins with a literal, because most
bodies have many keys, and few such escapes."""
_BEFORE_ESCAPE = len('"mode')
_HIDDEN_KEY = b'"":'
_NOT_EMPTY = re.compile(rb"[ \t\n\r]*[^ \t\n\r}]")

_Find = tuple[int, int, int]
"""Where a key begins, where its value begins, and where the value ends."""


class Edit(msgspec.Struct, frozen=True):
    """Bytes of a body, and what takes their place."""

    start: int
    end: int
    text: bytes


def with_model(body: Message, content_type: str, named: str, model: str) -> bytes:
    """Return a body that names another model.

    Args:
        body: A body that ``read_body`` can read.
        content_type: Its ``content-type`` header.
        named: The model that it names; empty: none.
        model: The name to write, which is another one.

    Raises:
        BodyError: The field cannot be replaced, because it is repeated too often.
    """
    is_json = not is_form(content_type)
    if is_json:
        body = in_utf8(body)
    if named and is_json:
        # Most bodies have the key once, near their start. To read the result costs less than to
        # search the rest: if it names the model, this was the last such field of the document.
        match = _PLAIN.match(body, max(0, body.find(b'"model"')))
        if match is not None:
            result = edited(body, (Edit(*match.span(1), msgspec.json.encode(model)),))
            if read_body(result, content_type).model == model:
                return result
    result = edited(body, model_edits(body, content_type, named, model))
    if not named and read_body(result, content_type).model != model:
        raise BodyError(BodyErrorKind.MALFORMED, "The field 'model' cannot be added to the body.")
    return result


def model_edits(body: Message, content_type: str, named: str, model: str) -> tuple[Edit, ...]:
    """Return the edits, in order, that make a body name another model.

    Args:
        body: A body that ``read_body`` can read.
        content_type: Its ``content-type`` header.
        named: The model that it names; empty: none. In that case the name is inserted.
        model: The name to write.

    Raises:
        BodyError: The field cannot be replaced, because it is repeated too often.
    """
    if is_form(content_type):
        return (_form_edit(bytes(body), content_type, named, model),)
    text = msgspec.json.encode(model)
    finds = _finds(body)
    if len(finds) == 1 and named:
        counting: Sequence[_Find] = finds
    else:
        counting = _that_count(body, content_type, finds) if finds else ()
    if counting:
        return tuple(Edit(start, end, text) for _, start, end in sorted(counting))
    at = body.index(b"{") + 1
    more = b"," if _NOT_EMPTY.match(body, at) else b""
    return (Edit(at, at, b'"model":' + text + more),)


def edited(body: Message, edits: Sequence[Edit]) -> bytes:
    """Return the body after edits."""
    view, parts, at = memoryview(body), list[bytes | memoryview](), 0
    for edit in edits:
        parts += (view[at : edit.start], edit.text)
        at = edit.end
    parts.append(view[at:])
    return b"".join(parts)


def _finds(body: Message) -> list[_Find]:
    """Return the keys ``model`` at any depth that have a string or null for a value."""
    found = list(islice(_keys(body), MAX_FINDS + 1))
    if len(found) > MAX_FINDS:
        raise _too_often(MAX_FINDS)
    return sorted(found)


def _keys(body: Message) -> Iterator[_Find]:
    for match in _PLAIN.finditer(body):
        yield match.start(), *match.span(1)
    escapes = body.count(_ESCAPE)
    if escapes > MAX_ESCAPES:
        raise BodyError(
            BodyErrorKind.MALFORMED,
            f"The body has letters as escapes more than {MAX_ESCAPES} times, so the field 'model' "
            "cannot be replaced.",
        )
    if escapes:
        for match in _ESCAPED.finditer(body):
            at = match.start()
            yield body.rfind(b'"', max(0, at - _BEFORE_ESCAPE), at), *match.span(1)


def _that_count(body: Message, content_type: str, finds: Sequence[_Find]) -> list[_Find]:
    """Return the finds that are fields of the document itself."""
    counting: dict[int, _Find] = {}
    # So that not each pass below rewrites it again.
    text = _rewritten(body)
    mark = len(body) - len(text)
    while len(counting) < len(finds):
        edits = []
        for number, (key, start, end) in enumerate(finds):
            edits.append(
                Edit(key - mark, start - mark, _HIDDEN_KEY)
                if number in counting
                else Edit(start - mark, end - mark, b'"%d"' % number)
            )
        try:
            last = read_body(edited(text, edits), content_type).model
        except BodyError:
            # An earlier field has a value that is not a string. It counts for nobody.
            break
        if not last:
            break
        if len(counting) == MAX_REPEATED:
            raise _too_often(MAX_REPEATED)
        counting[int(last)] = finds[int(last)]
    return list(counting.values())


def _rewritten(body: Message) -> Message:
    """Return a body as msgspec can read it: the same bytes, but for a byte order mark."""
    try:
        return rewritten(body).text
    except LenientJsonError:
        return body  # It can be read, so its many numbers are in strings.


def _form_edit(body: bytes, content_type: str, named: str, model: str) -> Edit:
    """Return the edit of a form's last field ``model``, or the one that adds the field."""
    value, text = named.encode(), model.encode()
    field = b"\r\n\r\n" + value + b"\r\n--"
    end = len(body)
    for _ in range(MAX_REPEATED):
        at = body.rfind(field, 0, end)
        if at < 0:
            break
        start = at + 4
        edit = Edit(start, start + len(value), text)
        if _reads(body, content_type, edit, model):
            return edit
        end = at + len(field) - 1
    if not named:
        # A form begins with its delimiter, and some clients write a line end before it.
        start = 2 if body.startswith(b"\r\n") else 0
        delimiter = body[start : body.find(b"\r\n", start)]
        head = b'\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
        edit = Edit(start, start, delimiter + head + text + b"\r\n")
        if _reads(body, content_type, edit, model):
            return edit
    raise BodyError(BodyErrorKind.MALFORMED, "The field 'model' of the form cannot be replaced.")


def _reads(body: bytes, content_type: str, edit: Edit, model: str) -> bool:
    """Return whether an edited body names the model."""
    try:
        return read_body(edited(body, (edit,)), content_type).model == model
    except BodyError:
        return False


def _too_often(most: int) -> BodyError:
    return BodyError(
        BodyErrorKind.MALFORMED,
        f"The field 'model' is repeated more than {most} times, so it cannot be replaced.",
    )

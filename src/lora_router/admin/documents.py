"""The HTML documents: the page, and the form to sign in.

Each is sent as one file that needs no other. Its style and its script are files of their own in the
folder ``page``, and stand in the document when it is sent. The document's policy names their
hashes: a browser runs nothing else, connects to nothing but this server, and refuses to make HTML
from text.
"""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

SCRIPTS = (
    "dom.js",
    "words.js",
    "table.js",
    "rows.js",
    "stream.js",
    "explanation.js",
    "fleet.js",
    "pod.js",
    "held.js",
    "decisions.js",
    "adapters.js",
    "routers.js",
    "summary.js",
    "main.js",
)
"""The script's parts, in order. They share one scope."""
_STYLE, _SCRIPT = "/* style */", "/* script */"

_SIGN_OUT = "<!-- sign out -->"
_BUTTON = '<form method="post" action="/sign-out"><button>Sign out</button></form>'


class Document(NamedTuple):
    """What is sent."""

    text: str
    policy: str
    """The header ``Content-Security-Policy``."""


@cache
def page(*, signs_out: bool = False) -> Document:
    """Return the page.

    Args:
        signs_out: Whether it has a button to end the session.
    """
    found = _document("page.html", ("page.css",), SCRIPTS)
    return found._replace(text=found.text.replace(_SIGN_OUT, _BUTTON if signs_out else ""))


@cache
def sign_in(message: str = "") -> Document:
    """Return the form to sign in.

    Args:
        message: One of a few sentences, which stands above the form. It is HTML.
    """
    found = _document("sign_in.html", ("sign_in.css",), ())
    return found._replace(text=found.text.replace("<!-- message -->", message))


def _document(name: str, styles: tuple[str, ...], scripts: tuple[str, ...]) -> Document:
    style, script = _joined(styles), _joined(scripts)
    text = _read(name).replace(_STYLE, style).replace(_SCRIPT, script)
    policy = [
        "default-src 'none'",
        f"style-src {_hash(style)}",
        "img-src data:",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ]
    if script:
        policy += [
            f"script-src {_hash(script)}",
            "connect-src 'self'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    return Document(text, "; ".join(policy))


def _joined(names: tuple[str, ...]) -> str:
    return "\n".join(map(_read, names))


def _read(name: str) -> str:
    return (files("lora_router.admin") / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"

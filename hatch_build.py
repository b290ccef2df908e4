"""Writes the description of the package for an index page, from README.md, when a wheel is built.

An index shows the README without the files beside it. Links to these files and pictures would lead
nowhere there, and an absolute address would have to name one hosting site. So links keep their text
only, and pictures are left out.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PICTURE = re.compile(r"!\[[^\]]*\]\((?!https?://)[^)]*\)\n*")
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?://)([^)]*)\)")
_COMMENT = re.compile(r"<!--.*?-->\n*", re.DOTALL)
_NOTE = "\nThe files that this page names are in the source archive.\n"


def index_page(readme: str) -> str:
    """Return the README as it can stand alone."""
    text = _COMMENT.sub("", _PICTURE.sub("", readme))
    return _LINK.sub(_text, text) + _NOTE


def _text(link: re.Match[str]) -> str:
    text, target = link.groups()
    return f"`{target}`" if text == target else text


class Description(MetadataHookInterface):
    """Sets ``readme`` in the package's metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the description."""
        readme = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": index_page(readme)}

"""What the pages need to be built: links out of docs/ lead to files of the repository, which are no pages."""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Leave the text of such a link."""
    return OUTSIDE.sub(r"\1", markdown)

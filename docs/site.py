"""Hooks of mkdocs for `make site`: README.md is the first page, and links to files outside docs/ become text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

README = Path(__file__).parent.parent / "README.md"


def on_files(files: Files, config: Any) -> Files:
    """Add README.md as the first page."""
    text = README.read_text(encoding="utf-8").replace("](docs/", "](").replace('"docs/', '"')
    files.append(File.generated(config, "index.md", content=_without_links(text, r"CONTRIBUTING\.md|LICENSE")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Keep the text of a link to a file of the repository that is not in docs/."""
    return _without_links(markdown, r"\.\./[^)]*")


def _without_links(markdown: str, target: str) -> str:
    return re.sub(rf"\[([^\]]*)\]\((?:{target})\)", r"\1", markdown)

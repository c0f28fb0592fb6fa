"""The links of the docs have targets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them: words, joined by dashes, without punctuation."""
    headings = re.findall(r"^#+ +(.*?)\s*$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leads_nowhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    if not target.exists():
        return True
    if target.suffix == ".py":
        return bool(anchor) and f"def {anchor}(" not in target.read_text(encoding="utf-8")
    return bool(anchor) and anchor not in anchors(target)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_of_the_repository_leads_to_that_file_and_heading(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", page.read_text(encoding="utf-8")))

    assert [link for link in links if "://" not in link and leads_nowhere(page, link)] == []


def test_every_page_of_the_docs_is_in_the_readme_and_on_the_site() -> None:
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}

    assert pages - set(re.findall(r"\(docs/([\w-]+\.md)\)", (ROOT / "README.md").read_text("utf-8"))) == set()
    assert pages - set(re.findall(r"- ([\w-]+\.md)", (ROOT / "mkdocs.yml").read_text("utf-8"))) == set()

"""Rules that the import contract in pyproject.toml cannot express, and the modules in docs/architecture.md."""

from __future__ import annotations

import fnmatch
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import grimp
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("rackctl", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}

    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "rackctl"
FILES = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}
# The sections whose names without a folder are in one.
SUBJECTS = {"## The local rack": "local/", "## A roll: observe, decide, act": "roll/"}


def named_files() -> Iterator[tuple[str, set[str]]]:
    """Yield each name of a file or folder of rackctl in docs/architecture.md, and the files that it stands for.

    A name without a folder is in the folder of the name before it in its line, or else in that of its section.
    """
    subject = ""
    for line in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            subject = SUBJECTS.get(line, "")
        folder = ""
        for name in re.findall(r"[\w*/]*\w\*?\.py|(?:\w+/)+(?![\w*])", line.replace("../", "")):
            if (ROOT / name).exists():
                continue
            pattern = f"{name}*" if name.endswith("/") else name
            places = [
                pattern,
                f"{folder}{pattern}",
                *([f"{subject}{pattern}", f"{subject}*/{pattern}"] if subject else ()),
            ]
            yield name, next((found for place in places if (found := set(fnmatch.filter(FILES, place)))), set())
            folder = name[: name.rfind("/") + 1] or folder


def test_the_architecture_names_every_module_and_none_that_does_not_exist() -> None:
    names = list(named_files())
    # A folder of the first floor says nothing of what is in it.
    found = {file for name, files in names if name.endswith(".py") or name.count("/") > 1 for file in files}

    assert [name for name, files in names if not files] == []
    assert sorted(file for file in FILES - found if not file.endswith("__init__.py")) == []


@pytest.mark.parametrize(("folder", "most"), [("src", 400), ("tests", 500)])
def test_no_file_is_too_long_to_be_read_at_once(folder: str, most: int) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / folder).rglob("*.py")}

    assert [f"{path.relative_to(ROOT)}: {length} lines" for path, length in lengths.items() if length > most] == []


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings as GitHub makes them: lower case, no punctuation, dashes for spaces."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_of_the_docs_leads_to_a_file_a_heading_or_a_test_that_exists() -> None:
    broken, links = [], 0
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for path, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text(encoding="utf-8")):
            links += 1
            to = (page.parent / path).resolve() if path else page
            if not anchor or not to.exists():
                found = to.exists()
            elif to.suffix == ".py":
                found = f"def {anchor}(" in to.read_text(encoding="utf-8")
            else:
                found = anchor in anchors(to)
            if not found:
                broken.append(f"{page.name}: {path}#{anchor}")

    assert broken == []
    assert links > 50

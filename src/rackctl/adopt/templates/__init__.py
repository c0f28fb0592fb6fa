"""Templates of CloudFormation and Terraform: the store that `racks adopt` creates, and a whole rack."""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

from rackctl.errors import UsageError

Kind = Literal["store", "rack"]
Format = Literal["cloudformation", "terraform"]

_FILES: dict[tuple[str, str], str] = {
    ("store", "cloudformation"): "store.yaml",
    ("store", "terraform"): "store.tf",
    ("rack", "cloudformation"): "rack.yaml",
}


def template(kind: Kind, form: Format) -> str:
    """Return the text of a template. Raises UsageError if there is none."""
    if (kind, form) not in _FILES:
        raise UsageError(f"there is no template for a {kind} as {form}", hint="use --format cloudformation")
    return files(__name__).joinpath(_FILES[kind, form]).read_text(encoding="utf-8")

"""The findings of checks, and of checks that fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rackctl.errors import AccessDenied, RackctlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Status = Literal["ok", "warning", "problem", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A result of a check. ``remedy`` is empty if nothing is to be done."""

    check: str
    status: Status
    message: str
    remedy: str = ""


def failed(
    check: str, error: RackctlError, *, status: Status = "problem", what: str = "could not be checked"
) -> Finding:
    """Return the finding of a check that an error has ended."""
    return Finding(check, status, f"{what}: {error}", error.hint)


def skipped(reason: str, checks: Iterable[str]) -> Iterator[Finding]:
    return (Finding(check, "skipped", reason) for check in checks)


def told(name: str, check: Callable[[], Iterator[Finding]], *, needed: bool = True) -> list[Finding]:
    """Return the findings of a check, the error that ended it among them. Raises nothing.

    A denial is a problem only if the check is ``needed``.
    """
    found: list[Finding] = []
    try:
        for finding in check():
            found.append(finding)  # noqa: PERF402 - what came before an error counts
    except AccessDenied as error:
        found.append(failed(name, error, status="problem" if needed else "skipped"))
    except RackctlError as error:
        found.append(failed(name, error))
    except Exception as error:  # noqa: BLE001 - a mistake in one check hides no other
        reason = f"an error in rackctl itself: {type(error).__name__}: {error}"
        found.append(Finding(name, "problem", f"could not be checked: {reason}", "report it"))
    return found

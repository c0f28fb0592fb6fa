"""Auto Scaling's own replacement of a group's instances, as DescribeInstanceRefreshes reports it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_InstanceRefresh.html
_REFRESHING = frozenset({"Pending", "InProgress", "Cancelling", "RollbackInProgress", "Baking"})


@dataclass(frozen=True, slots=True)
class InstanceRefresh:
    """An instance refresh.

    ``preferences`` and ``desired_configuration`` are AWS's documents: those of the request, with AWS's defaults added.
    """

    instance_refresh_id: str
    status: str
    status_reason: str = ""
    percentage_complete: int = 0
    instances_to_update: int = 0
    preferences: Mapping[str, Any] = field(default_factory=dict)
    desired_configuration: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_active(self) -> bool:
        """Whether it may still replace instances. A group has at most one active refresh."""
        return self.status in _REFRESHING

    @property
    def can_be_stopped(self) -> bool:
        """Whether it is active and neither being cancelled nor rolled back."""
        return self.is_active and self.status not in {"Cancelling", "RollbackInProgress"}

from __future__ import annotations

import pytest

from rackctl.local.api.ecs import query

VALUES: query.Values = {
    "agentConnected": True,
    "agentVersion": "1.98.0",
    "ec2InstanceId": "i-0a1b2c3d",
    "registeredAt": 1_780_000_000.0,
    "runningTasksCount": 3.0,
    "task:group": ("service:web", "family:job"),
    "attribute:ecs.instance-type": "t3.small",
    "attribute:stack": "prod",
    "attribute:ecs.capability.task-eni": None,
}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("agentConnected == true", True),
        ("agentConnected == false", False),
        ("agentConnected equals true", True),
        ("ec2InstanceId in ['i-0a1b2c3d', i-1]", True),
        ("ec2InstanceId !in [i-1]", True),
        ("ec2InstanceId not_in [i-0a1b2c3d]", False),
        ("ec2InstanceId == 'i-0a1b2c3d'", True),
        ("ec2InstanceId==i-0a1b2c3d", True),
        ("attribute:stack == prod", True),
        ("attribute:stack != prod", False),
        ("attribute:stack =~ ^pr.d$", True),
        ('attribute:stack !~ "^test"', True),
        ("attribute:ecs.instance-type =~ t3.*", True),
        ("attribute:ecs.capability.task-eni exists", True),
        ("attribute:nothing exists", False),
        ("attribute:nothing !exists", True),
        ("attribute:nothing not_exists", True),
        ("attribute:nothing == x", False),
        ("runningTasksCount == 3", True),
        ("runningTasksCount > 2", True),
        ("runningTasksCount >= 4", False),
        ("runningTasksCount less_than 4", True),
        ("registeredAt > 2020-01-01T00:00:00+00:00", True),
        ("registeredAt > 2030-01-01", False),
        ("task:group == service:web", True),
        ("task:group == service:worker", False),
        ("agentConnected == true and runningTasksCount == 0", False),
        ("agentConnected == false or runningTasksCount == 3", True),
        ("agentConnected == true || agentConnected == true && runningTasksCount == 0", True),
        ("(agentConnected == true or agentConnected == true) and runningTasksCount == 0", False),
        ("not runningTasksCount == 0", True),
        ("!(runningTasksCount == 3)", False),
    ],
)
def test_expressions_choose(expression: str, expected: bool) -> None:
    assert query.parse(expression)(VALUES) is expected


@pytest.mark.parametrize(
    "expression",
    [
        "agentConnected",
        "agentConnected ==",
        "agentConnected == and",
        "== true",
        "colour == red",
        "agentConnected is true",
        "ec2InstanceId in i-1",
        "ec2InstanceId in [i-1",
        "(agentConnected == true",
        "agentConnected == true)",
        "agentConnected == true agentConnected == true",
        "runningTasksCount > many",
        "runningTasksCount == many",
        "attribute:stack =~ '('",
        "attribute:stack == 'prod",
        "attribute:stack == == prod",
    ],
)
def test_an_invalid_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        query.parse(expression)

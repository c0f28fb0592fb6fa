from __future__ import annotations

from collections import Counter
from math import ceil
from types import SimpleNamespace
from typing import Any

import pytest
from benchmarks.server import CLUSTER, Answers
from botocore.awsrequest import AWSResponse
from click.testing import CliRunner

from rackctl.aws.session import Aws, Credentials
from rackctl.cli.invocation import Invocation
from rackctl.cli.main import cli
from rackctl.rack import Rack
from rackctl.settings import Value
from tests.fakes.origin import GIVEN


def aws_answering(answers: Answers) -> Aws:
    """Make an AWS whose requests are botocore's, answered before they reach a socket."""

    def answer(request: Any, **_: object) -> AWSResponse:
        target = request.headers.get("X-Amz-Target", b"")
        body = request.body.encode() if isinstance(request.body, str) else request.body
        content_type, content = answers.to(request.method.encode(), b"/", target, body)
        raw = SimpleNamespace(stream=lambda: [content])
        return AWSResponse(request.url, 200, {"Content-Type": content_type, "x-amzn-RequestId": "0"}, raw)

    return Aws(region="us-east-1", endpoint_url="http://127.0.0.1:1", credentials=Credentials("x", "x"), send=answer)


# 5,000 instances are 20 MB of JSON and 26 MB of XML to write and to read: that takes its seconds.
@pytest.mark.parametrize("instances", [0, 1, 100, 101, 1001, 5000])
def test_the_list_takes_no_more_calls_than_pages_and_two(instances: int) -> None:
    answers = Answers(instances)
    invocation = Invocation(environment={"RACKCTL_CONFIG": "/nowhere", "RACKCTL_STATE_DIR": "/nowhere"})
    invocation.rack = Rack(Value(CLUSTER, GIVEN), {}, aws=aws_answering(answers))

    result = CliRunner().invoke(cli, ["instances"], obj=invocation)

    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == instances + 1
    pages = Counter(
        ListContainerInstances=ceil(instances / 100),
        DescribeContainerInstances=ceil(instances / 100),
        DescribeInstances=ceil(instances / 1000),
    )
    assert (answers.calls - pages).total() <= 2, answers.calls

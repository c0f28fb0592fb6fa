"""Have @cloud-copilot/iam-simulate, a witness, decide requests under the policies of `racks policy`.

``make iam-verdicts`` installs it from npm into build/ and writes tests/local/iam_verdicts.json, with which a test
compares the local rack's evaluation. https://github.com/cloud-copilot/iam-simulate
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rackctl.policies import ROLES, Facts, policy

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
VERDICTS = ROOT / "tests" / "local" / "iam_verdicts.json"
PLACE = ROOT / "build" / "iam-simulate"
ACCOUNT = "123456789012"
_OF_A_SERVICE = {"<region>": ["eu-west-1"], "<account>": [ACCOUNT], "<bucket owner>": [ACCOUNT]}
_JUDGE = """
import { readFileSync } from "node:fs"
import { runSimulation } from "@cloud-copilot/iam-simulate"
const { account, policy, requests } = JSON.parse(readFileSync(0, "utf8"))
const verdicts = []
for (const { action, resource, context } of requests) {
  const result = await runSimulation({
    request: {
      principal: `arn:aws:iam::${account}:user/ann`,
      action,
      resource: { resource, accountId: account },
      contextVariables: context,
    },
    identityPolicies: [{ name: "policy", policy }],
    serviceControlPolicies: [],
    resourceControlPolicies: [],
    // A key's own policy, as KMS makes it: the account's IAM policies decide.
    ...(resource.includes(":key/") ? { resourcePolicy: { Version: "2012-10-17", Statement: [{
      Effect: "Allow", Action: "kms:*", Resource: "*", Principal: { AWS: `arn:aws:iam::${account}:root` },
    }] } } : {}),
  }, {})
  verdicts.push(result.resultType === "error" ? result.errors : result.overallResult ?? result.analysis?.result)
}
console.log(JSON.stringify(verdicts))
"""


def main() -> None:
    """Write the verdicts."""
    names = {name for role in ROLES.values() for grant in _all(role) for name in grant.names}
    named = {name: [re.sub(r"[^a-z]", "", name) or "x"] for name in names} | _OF_A_SERVICE
    document = policy(ROLES, Facts(named))
    requests = list(_requests(document))
    PLACE.mkdir(parents=True, exist_ok=True)
    (PLACE / "package.json").write_text('{"type": "module", "private": true}\n', encoding="utf-8")
    (PLACE / "judge.mjs").write_text(_JUDGE, encoding="utf-8")
    subprocess.run(["npm", "install", "--silent", "@cloud-copilot/iam-simulate"], cwd=PLACE, check=True)
    asked = json.dumps({"account": ACCOUNT, "policy": document, "requests": requests})
    done = subprocess.run(["node", "judge.mjs"], cwd=PLACE, input=asked, capture_output=True, text=True, check=True)
    verdicts = json.loads(done.stdout)
    if mistaken := [(r, v) for r, v in zip(requests, verdicts, strict=True) if not isinstance(v, str)]:
        raise SystemExit(f"no verdict on {mistaken}")
    judged = [{**r, "allowed": v == "Allowed"} for r, v in zip(requests, verdicts, strict=True)]
    lines = ",\n  ".join(json.dumps(one) for one in judged)
    VERDICTS.write_text(f'{{"policy": {json.dumps(document)},\n "requests": [\n  {lines}\n]}}\n', encoding="utf-8")
    print(f"{len(judged)} requests, {sum(one['allowed'] for one in judged)} of them allowed")


def _all(role: Any) -> Iterator[Any]:
    yield from role.grants
    for part in role.parts.values():
        yield from part


def _requests(document: Any) -> Iterator[dict[str, Any]]:
    """Yield a request that each statement allows, and variants with another resource, another context and none.

    The simulator knows no encryption contexts: it ignores the key kms:EncryptionContext:aws:s3:arn, too, which is in
    AWS's own examples. https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html
    """
    for statement in document["Statement"]:
        if "kms:EncryptionContext" in json.dumps(statement.get("Condition", {})):
            continue
        actions, resources = statement["Action"], statement["Resource"]
        action = actions if isinstance(actions, str) else actions[0]
        resource = (resources if isinstance(resources, str) else resources[0]).replace("*", "x")
        condition = statement.get("Condition", {})
        context = {key: value for keys in condition.values() for key, value in keys.items()}
        resource = "*" if resource == "x" else resource
        yield {"action": action, "resource": resource, "context": context}
        if resource != "*":
            others = {f"{resource[:-1]}y", re.sub(r"(?<=/)[a-z]+(?=/[^/]*$)", "other", resource)} - {resource}
            yield from ({"action": action, "resource": other, "context": context} for other in sorted(others))
        for key, value in context.items():
            yield {"action": action, "resource": resource, "context": {**context, key: f"{value}x"}}
            yield {"action": action, "resource": resource, "context": {k: v for k, v in context.items() if k != key}}


if __name__ == "__main__":
    main()

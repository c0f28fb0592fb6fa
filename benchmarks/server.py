"""A server that answers like AWS, fast enough that only the client is measured.

``python -m benchmarks.server INSTANCES DELAY CONNECT_DELAY DIRECTORY`` serves a cluster ``bench`` of so many instances
on loopback over TLS, and prints its URL. Each call is answered after DELAY seconds, and the handshake of each
connection begins after CONNECT_DELAY. The certificate is in DIRECTORY (`benchmarks.tls`).

Documents are rendered before it is asked: container instances with 40 attributes each, EC2 instances with every member
that a current instance in a VPC has. Pages are AWS's: 100 for ECS, and for EC2 what MaxResults asks, up to 1,000.

For ``ssh``, every instance's address is 127.0.0.1, with the user and port that are SSH_USER and SSH_PORT in the
environment; S3 and KMS remember the one key that was stored last (`benchmarks.store_key`). ``GET /calls`` tells how
often each operation has been called.

It does not look at credentials, and knows only the calls that the benchmarks make.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from benchmarks.tls import context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

CLUSTER = "bench"
KEY_NAME = "bench-keypair-20260101T000000Z"
_ACCOUNT = "123456789012"
_ARN = f"arn:aws:ecs:us-east-1:{_ACCOUNT}"
_KMS_KEY = f"arn:aws:kms:us-east-1:{_ACCOUNT}:key/00000000-0000-0000-0000-000000000000"
_ECS_PAGE = 100
_EC2_PAGE = 1000
_ECS_TARGET = b"AmazonEC2ContainerServiceV20141113."
_KMS_TARGET = b"TrentService."


def ec2_instance_id(number: int) -> str:
    return f"i-{number:017x}"


def container_instance(number: int) -> dict[str, object]:
    """Return a container instance as DescribeContainerInstances answers it."""
    ports = ["22", "2375", "2376", "51678", "51679"]

    def resources(cpu: int, memory: int) -> list[dict[str, object]]:
        whole = {"doubleValue": 0.0, "longValue": 0}
        return [
            {"name": "CPU", "type": "INTEGER", **whole, "integerValue": cpu},
            {"name": "MEMORY", "type": "INTEGER", **whole, "integerValue": memory},
            {"name": "PORTS", "type": "STRINGSET", **whole, "integerValue": 0, "stringSetValue": ports},
            {"name": "PORTS_UDP", "type": "STRINGSET", **whole, "integerValue": 0, "stringSetValue": []},
        ]

    capabilities = [
        "logging-driver.awslogs",
        "logging-driver.fluentd",
        "logging-driver.json-file",
        "logging-driver.syslog",
        "privileged-container",
        "ecr-auth",
        "task-iam-role",
        "task-iam-role-network-host",
        *(f"docker-remote-api.1.{version}" for version in range(17, 38)),
    ]
    attributes: list[dict[str, str]] = [{"name": f"com.amazonaws.ecs.capability.{name}"} for name in capabilities]
    attributes += [
        {"name": f"ecs.{name}", "value": value}
        for name, value in {
            "ami-id": "ami-0a1b2c3d4e5f60718",
            "availability-zone": f"us-east-1{'abc'[number % 3]}",
            "availability-zone-id": f"use1-az{number % 3 + 1}",
            "cpu-architecture": "x86_64",
            "instance-type": "m5.large",
            "os-type": "linux",
            "os-family": "LINUX",
            "subnet-id": "subnet-0a1b2c3d4e5f60718",
            "vpc-id": "vpc-0a1b2c3d4e5f60718",
            "awsvpc-trunk-id": f"eni-{number:017x}",
            "outpost-arn": "",
        }.items()
    ]
    assert len(attributes) == 40
    return {
        "agentConnected": True,
        "attachments": [],
        "attributes": attributes,
        "capacityProviderName": "bench",
        "containerInstanceArn": _container_instance_arn(number),
        "ec2InstanceId": ec2_instance_id(number),
        "healthStatus": {"overallStatus": "OK", "details": [{"type": "CONTAINER_RUNTIME", "status": "OK"}]},
        "pendingTasksCount": 0,
        "registeredAt": 1735689600.0 + number,
        "registeredResources": resources(2048, 7764),
        "remainingResources": resources(2048 - number % 8 * 256, 7764 - number % 8 * 512),
        "runningTasksCount": number % 8,
        "status": "ACTIVE",
        "tags": [],
        "version": 100 + number % 50,
        "versionInfo": {"agentHash": "0a1b2c3d", "agentVersion": "1.98.0", "dockerVersion": "DockerVersion: 25.0.8"},
    }


def ec2_instance(number: int) -> str:
    """Return the reservation of an EC2 instance as DescribeInstances answers it."""
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    tags = {
        "Name": "bench",
        "Rack": CLUSTER,
        "Environment": "production",
        "aws:autoscaling:groupName": "bench-group",
        "aws:cloudformation:logical-id": "Instances",
        "aws:cloudformation:stack-name": "bench",
        "aws:ec2launchtemplate:id": "lt-0a1b2c3d4e5f60718",
        "aws:ec2launchtemplate:version": "12",
    }
    tag_set = "".join(f"<item><key>{key}</key><value>{value}</value></item>" for key, value in tags.items())
    groups = "<groupSet><item><groupId>sg-0a1b2c3d4e5f60718</groupId><groupName>bench</groupName></item></groupSet>"
    volumes = "".join(
        f"<item><deviceName>{device}</deviceName><ebs><volumeId>vol-{number:017x}</volumeId><status>attached</status>"
        "<attachTime>2025-01-01T00:00:01.000Z</attachTime><deleteOnTermination>true</deleteOnTermination></ebs></item>"
        for device in ("/dev/xvda", "/dev/xvdcz")
    )
    public = (
        f"<association><publicIp>127.0.0.1</publicIp><publicDnsName>ec2-{number}.compute-1.amazonaws.com</publicDnsName>"
        "<ipOwnerId>amazon</ipOwnerId></association>"
    )
    return f"""\
<item><reservationId>r-{number:017x}</reservationId><ownerId>{_ACCOUNT}</ownerId><groupSet/><instancesSet><item>\
<instanceId>{ec2_instance_id(number)}</instanceId><imageId>ami-0a1b2c3d4e5f60718</imageId>\
<instanceState><code>16</code><name>running</name></instanceState>\
<privateDnsName>ip-{address.replace(".", "-")}.ec2.internal</privateDnsName>\
<dnsName>ec2-{number}.compute-1.amazonaws.com</dnsName><reason/><keyName>{KEY_NAME}</keyName>\
<amiLaunchIndex>0</amiLaunchIndex><productCodes/><instanceType>m5.large</instanceType>\
<launchTime>2025-01-01T00:00:{number % 60:02}.000Z</launchTime>\
<placement><availabilityZone>us-east-1{"abc"[number % 3]}</availabilityZone>\
<availabilityZoneId>use1-az{number % 3 + 1}</availabilityZoneId><groupName/><tenancy>default</tenancy></placement>\
<monitoring><state>enabled</state></monitoring><subnetId>subnet-0a1b2c3d4e5f60718</subnetId>\
<vpcId>vpc-0a1b2c3d4e5f60718</vpcId><privateIpAddress>{address}</privateIpAddress><ipAddress>127.0.0.1</ipAddress>\
<sourceDestCheck>true</sourceDestCheck>{groups}<architecture>x86_64</architecture><rootDeviceType>ebs</rootDeviceType>\
<rootDeviceName>/dev/xvda</rootDeviceName><blockDeviceMapping>{volumes}</blockDeviceMapping>\
<virtualizationType>hvm</virtualizationType><clientToken>{number:08x}-0a1b-2c3d-4e5f-60718293a4b5</clientToken>\
<tagSet>{tag_set}</tagSet><hypervisor>xen</hypervisor><networkInterfaceSet><item>\
<networkInterfaceId>eni-{number:017x}</networkInterfaceId><subnetId>subnet-0a1b2c3d4e5f60718</subnetId>\
<vpcId>vpc-0a1b2c3d4e5f60718</vpcId><description/><ownerId>{_ACCOUNT}</ownerId><status>in-use</status>\
<macAddress>02:00:00:00:00:01</macAddress><privateIpAddress>{address}</privateIpAddress>\
<privateDnsName>ip-{address.replace(".", "-")}.ec2.internal</privateDnsName><sourceDestCheck>true</sourceDestCheck>\
{groups}<attachment><attachmentId>eni-attach-{number:017x}</attachmentId><deviceIndex>0</deviceIndex>\
<status>attached</status><attachTime>2025-01-01T00:00:00.000Z</attachTime>\
<deleteOnTermination>true</deleteOnTermination><networkCardIndex>0</networkCardIndex></attachment>{public}\
<privateIpAddressesSet><item><privateIpAddress>{address}</privateIpAddress>\
<privateDnsName>ip-{address.replace(".", "-")}.ec2.internal</privateDnsName><primary>true</primary>{public}</item>\
</privateIpAddressesSet><ipv6AddressesSet/><interfaceType>interface</interfaceType>\
<operator><managed>false</managed></operator></item></networkInterfaceSet>\
<iamInstanceProfile><arn>arn:aws:iam::{_ACCOUNT}:instance-profile/bench</arn><id>AIPA0A1B2C3D4E5F60718</id>\
</iamInstanceProfile><ebsOptimized>true</ebsOptimized><enaSupport>true</enaSupport>\
<cpuOptions><coreCount>1</coreCount><threadsPerCore>2</threadsPerCore></cpuOptions>\
<capacityReservationSpecification><capacityReservationPreference>open</capacityReservationPreference>\
</capacityReservationSpecification><hibernationOptions><configured>false</configured></hibernationOptions>\
<enclaveOptions><enabled>false</enabled></enclaveOptions><metadataOptions><state>applied</state>\
<httpTokens>required</httpTokens><httpPutResponseHopLimit>2</httpPutResponseHopLimit>\
<httpEndpoint>enabled</httpEndpoint><httpProtocolIpv6>disabled</httpProtocolIpv6>\
<instanceMetadataTags>disabled</instanceMetadataTags></metadataOptions>\
<privateDnsNameOptions><hostnameType>ip-name</hostnameType>\
<enableResourceNameDnsARecord>false</enableResourceNameDnsARecord>\
<enableResourceNameDnsAAAARecord>false</enableResourceNameDnsAAAARecord></privateDnsNameOptions>\
<maintenanceOptions><autoRecovery>default</autoRecovery></maintenanceOptions>\
<currentInstanceBootMode>legacy-bios</currentInstanceBootMode><platformDetails>Linux/UNIX</platformDetails>\
<usageOperation>RunInstances</usageOperation><usageOperationUpdateTime>2025-01-01T00:00:00.000Z\
</usageOperationUpdateTime><operator><managed>false</managed></operator></item></instancesSet>\
<requesterId>940372691376</requesterId></item>"""


def _container_instance_arn(number: int) -> str:
    return f"{_ARN}:container-instance/{CLUSTER}/{number:032x}"


class Answers:
    """What each call is answered with; ``calls`` counts them."""

    def __init__(self, instances: int) -> None:
        numbers = range(1, instances + 1)
        self.calls: Counter[str] = Counter()
        self._arns = [_container_instance_arn(number) for number in numbers]
        self._container_instances = {
            arn: json.dumps(container_instance(number)).encode()
            for arn, number in zip(self._arns, numbers, strict=True)
        }
        self._reservations = {ec2_instance_id(number): ec2_instance(number).encode() for number in numbers}
        self._private_key = self._key_document = self._key_object = b""

    def to(self, method: bytes, path: bytes, target: bytes, body: bytes) -> tuple[str, bytes]:
        """Return the content type and the body of the answer to a call."""
        if target:
            name = target.rpartition(b".")[2].decode()
            self.calls[name] += 1
            answer: Callable[[Mapping[str, object]], bytes] = getattr(self, f"_{name}")
            return "application/x-amz-json-1.1", answer(json.loads(body or b"{}"))
        if method == b"POST":
            form = {key: values[0] for key, values in parse_qs(body.decode()).items()}
            self.calls[form["Action"]] += 1
            return "text/xml;charset=UTF-8", getattr(self, f"_{form['Action']}")(form)
        if path == b"/calls":
            return "application/json", json.dumps(self.calls).encode()
        if method == b"PUT":
            self.calls["PutObject"] += 1
            self._key_document, self._key_object = body, path.partition(b"?")[0]
            return "application/xml", b""
        if b"list-type=2" in path:
            self.calls["ListObjectsV2"] += 1
            return "application/xml", self._listed()
        self.calls["GetObject"] += 1
        return "application/json", self._key_document

    def _listed(self) -> bytes:
        key = self._key_object.decode().removeprefix("/bench/")
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            "<Name>bench</Name><KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys><EncodingType>url</EncodingType>"
            f"<IsTruncated>false</IsTruncated><Contents><Key>{key}</Key>"
            f"<LastModified>2025-01-01T00:00:00.000Z</LastModified><ETag>&quot;0&quot;</ETag><Size>1</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents></ListBucketResult>"
        ).encode()

    def _ListContainerInstances(self, asked: Mapping[str, str]) -> bytes:  # noqa: N802 - AWS's names
        start = int(asked.get("nextToken", 0))
        end = start + _ECS_PAGE
        page: dict[str, object] = {"containerInstanceArns": self._arns[start:end]}
        if end < len(self._arns):
            page["nextToken"] = str(end)
        return json.dumps(page).encode()

    def _DescribeContainerInstances(self, asked: Mapping[str, list[str]]) -> bytes:  # noqa: N802
        found = b",".join(self._container_instances[arn] for arn in asked["containerInstances"])
        return b'{"containerInstances":[' + found + b'],"failures":[]}'

    def _DescribeInstances(self, asked: Mapping[str, str]) -> bytes:  # noqa: N802
        by_id = [
            asked[f"{key.removesuffix('.Name')}.Value.1"] for key, value in asked.items() if value == "instance-id"
        ]
        wanted = by_id or list(self._reservations)
        start = int(asked.get("NextToken", 0))
        end = start + min(int(asked.get("MaxResults", _EC2_PAGE)), _EC2_PAGE)
        token = f"<nextToken>{end}</nextToken>" if end < len(wanted) else ""
        return (
            b'<?xml version="1.0" encoding="UTF-8"?>\n'
            b'<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
            b"<requestId>0a1b2c3d-0a1b-2c3d-4e5f-60718293a4b5</requestId><reservationSet>"
            + b"".join(self._reservations[id_] for id_ in wanted[start:end])
            + f"</reservationSet>{token}</DescribeInstancesResponse>".encode()
        )

    def _GetConsoleOutput(self, asked: Mapping[str, str]) -> bytes:  # noqa: N802
        return (
            b'<GetConsoleOutputResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>0</requestId>'
            b"<instanceId>" + asked["InstanceId"].encode() + b"</instanceId>"
            b"<timestamp>2025-01-01T00:00:00.000Z</timestamp><output/></GetConsoleOutputResponse>"
        )

    def _DescribeClusters(self, _: Mapping[str, object]) -> bytes:  # noqa: N802
        tags = {
            "rackctl:bucket": "bench",
            "rackctl:kms-key": _KMS_KEY,
            "rackctl:ssh-port": os.environ.get("SSH_PORT", "22"),
            "rackctl:ssh-user": os.environ.get("SSH_USER", "ec2-user"),
        }
        cluster = {
            "clusterArn": f"{_ARN}:cluster/{CLUSTER}",
            "clusterName": CLUSTER,
            "status": "ACTIVE",
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        return json.dumps({"clusters": [cluster], "failures": []}).encode()

    def _Decrypt(self, _: Mapping[str, object]) -> bytes:  # noqa: N802
        return json.dumps({"KeyId": _KMS_KEY, "Plaintext": base64.b64encode(self._private_key).decode()}).encode()

    def _Encrypt(self, asked: Mapping[str, str]) -> bytes:  # noqa: N802
        self._private_key = base64.b64decode(asked["Plaintext"])
        return json.dumps({"KeyId": _KMS_KEY, "CiphertextBlob": base64.b64encode(b"sealed").decode()}).encode()


class _Connection(asyncio.Protocol):
    def __init__(self, answers: Answers, delay: float) -> None:
        self._answers = answers
        self._delay = delay
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._transport is None:  # the client's first request may come before start_tls() has returned
            return
        head, blank, rest = self._received.partition(b"\r\n\r\n")
        if not blank:
            return
        request_line, *lines = bytes(head).split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        length = int(headers.get(b"content-length", 0))
        if len(rest) < length:
            if not rest and headers.get(b"expect") == b"100-continue":
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        self._received.clear()
        method, path, _ = request_line.split(b" ", 2)
        target = headers.get(b"x-amz-target", b"")
        asyncio.get_running_loop().call_later(self._delay, self._answer, method, path, target, bytes(rest))

    def _answer(self, method: bytes, path: bytes, target: bytes, body: bytes) -> None:
        assert self._transport
        content_type, answer = self._answers.to(method, path, target, body)
        self._transport.writelines(
            [
                f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(answer)}\r\n"
                'ETag: "0"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nx-amzn-RequestId: 0\r\n\r\n'.encode(),
                answer,
            ]
        )


class _Handshake(asyncio.Protocol):
    """What a connection begins with: nothing for as long as a distant server takes, then TLS."""

    def __init__(self, answers: Answers, delay: float, connect_delay: float, tls: ssl.SSLContext) -> None:
        self._connection = _Connection(answers, delay)
        self._connect_delay = connect_delay
        self._tls = tls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        self._begun = asyncio.get_running_loop().create_task(self._begin(transport))

    async def _begin(self, transport: asyncio.Transport) -> None:
        await asyncio.sleep(self._connect_delay)
        with suppress(OSError):  # it has hung up
            loop = asyncio.get_running_loop()
            secured = await loop.start_tls(transport, self._connection, self._tls, server_side=True)
            assert secured
            self._connection.connection_made(secured)


async def _serve(answers: Answers, delay: float, connect_delay: float, directory: Path) -> None:
    loop, tls = asyncio.get_running_loop(), context(directory)
    server = await loop.create_server(lambda: _Handshake(answers, delay, connect_delay, tls), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"https://{host}:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    instances, delay, connect_delay, directory = sys.argv[1:]
    asyncio.run(_serve(Answers(int(instances)), float(delay), float(connect_delay), Path(directory)))

"""The address, port, user and proxy of a connection."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rackctl.errors import SshError, UsageError
from rackctl.rack import Rack
from rackctl.settings import Origin, Source, Value
from rackctl.ssh.reach import reach
from tests.fakes.origin import GIVEN
from tests.ssh.entry import OneInstance
from tests.test_instances import A, ec2

if TYPE_CHECKING:
    from pathlib import Path

    from rackctl.ssh.reach import Target

BOTH = replace(ec2(A), public_ip="203.0.113.9", private_ip="10.0.0.9")
PRIVATE = replace(BOTH, public_ip="")
IPV6_ONLY = replace(PRIVATE, private_ip="", ipv6_address="2001:db8::9")


def rack(**settings: str) -> Rack:
    given = {name: Value(value, GIVEN) for name, value in {"cluster": "prod", **settings}.items()}
    return Rack(Value("prod", GIVEN), given, aws=OneInstance())  # type: ignore[arg-type]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory of PATH, empty."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def install(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).touch(0o755)


@pytest.mark.parametrize(
    ("setting", "instance", "host"),
    [
        ("auto", BOTH, "203.0.113.9"),
        ("auto", PRIVATE, "10.0.0.9"),
        ("public", BOTH, "203.0.113.9"),
        ("private", BOTH, "10.0.0.9"),
        ("auto", IPV6_ONLY, "2001:db8::9"),
        ("ipv6", replace(BOTH, ipv6_address="2001:db8::9"), "2001:db8::9"),
        ("auto", replace(BOTH, ipv6_address="2001:db8::9"), "203.0.113.9"),
        ("auto", replace(PRIVATE, ipv6_address="2001:db8::9"), "10.0.0.9"),
    ],
)
def test_the_address(setting: str, instance: object, host: str) -> None:
    target = reach(rack(address=setting), instance)  # type: ignore[arg-type]

    assert (target.host, target.port, target.user, target.proxy) == (host, 22, "ec2-user", None)


def test_auto_is_the_private_address_through_a_command() -> None:
    assert reach(rack(proxy_command="nc %h %p"), BOTH).host == "10.0.0.9"


def test_user_and_port() -> None:
    target = reach(rack(ssh_user="core", ssh_port="2222"), BOTH)

    assert (target.user, target.port) == ("core", 2222)


def test_a_missing_address_names_another_one() -> None:
    with pytest.raises(SshError, match="has no public address") as caught:
        reach(rack(address="public"), PRIVATE)

    assert "10.0.0.9" in caught.value.hint
    with pytest.raises(SshError, match="has no IPv6 address"):
        reach(rack(address="ipv6"), BOTH)
    with pytest.raises(SshError, match="has no private address") as caught:
        reach(rack(address="private"), IPV6_ONLY)
    assert "2001:db8::9" in caught.value.hint
    with pytest.raises(SshError, match="has no address"):
        reach(rack(), replace(PRIVATE, private_ip=""))


def test_an_ipv6_only_instance_is_reached_through_a_jump_host_in_brackets(programs: Path) -> None:
    install(programs, "ssh")

    assert proxy_of(reach(rack(jump="bastion"), IPV6_ONLY))[:3] == ("ssh", "-W", "[2001:db8::9]:22")


@pytest.mark.parametrize("state", ["pending", "stopping", "stopped", "shutting-down", "terminated"])
def test_an_instance_that_is_not_running_is_refused_with_its_state(state: str) -> None:
    with pytest.raises(SshError, match=f"{A} is {state}"):
        reach(rack(), replace(BOTH, state=state))


def proxy_of(target: Target) -> tuple[str, ...]:
    assert target.proxy
    return target.proxy.argv


def test_the_proxy_command_is_expanded_and_given_to_the_users_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/zsh")

    target = reach(rack(proxy_command="lead %h %p %i %r 100%% %%h"), BOTH)

    assert proxy_of(target) == ("/bin/zsh", "-c", f"exec lead 10.0.0.9 22 {A} ec2-user 100% %h")


@pytest.mark.parametrize("command", ["nc %x", "nc %"])
def test_an_unknown_token_of_the_proxy_command_is_refused(command: str) -> None:
    with pytest.raises(UsageError, match="unknown token"):
        reach(rack(proxy_command=command), BOTH)


def test_a_user_with_shell_syntax_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be used for %r"):
        reach(rack(proxy_command="nc %r", ssh_user="a; rm -rf ~"), BOTH)


@pytest.mark.parametrize(
    ("jump", "argv"),
    [
        ("bastion", ("ssh", "-W", "10.0.0.9:22", "--", "bastion")),
        ("ann@b.example:2200", ("ssh", "-W", "10.0.0.9:22", "-l", "ann", "-p", "2200", "--", "b.example")),
        ("[2001:db8::1]:22", ("ssh", "-W", "10.0.0.9:22", "-p", "22", "--", "2001:db8::1")),
    ],
)
def test_a_jump_host_is_openssh_with_the_users_own_configuration(
    jump: str, argv: tuple[str, ...], programs: Path
) -> None:
    install(programs, "ssh")

    assert proxy_of(reach(rack(jump=jump), BOTH)) == argv


@pytest.mark.parametrize("jump", ["-oProxyCommand=x", "a b", "ann@", "host:port", "@host", "-l@host"])
def test_an_invalid_jump_host_is_refused(jump: str, programs: Path) -> None:
    install(programs, "ssh")

    with pytest.raises(UsageError, match=r"\[user@\]host\[:port\]"):
        reach(rack(jump=jump), BOTH)


def test_session_manager(programs: Path) -> None:
    install(programs, "aws", "session-manager-plugin")

    target = reach(rack(via="ssm", profile="p", ssh_port="2222"), replace(PRIVATE, private_ip=""))

    assert proxy_of(target) == (
        *("aws", "ssm", "start-session", "--target", A, "--document-name", "AWS-StartSSHSession"),
        *("--parameters", "portNumber=2222", "--region", "us-east-1", "--profile", "p"),
    )


def test_instance_connect_endpoint(programs: Path) -> None:
    install(programs, "aws")

    assert proxy_of(reach(rack(via="eice"), BOTH)) == (
        *("aws", "ec2-instance-connect", "open-tunnel", "--instance-id", A, "--remote-port", "22"),
        *("--region", "us-east-1"),
    )


@pytest.mark.parametrize(
    ("settings", "installed", "missing"),
    [
        ({"via": "ssm"}, ("aws",), "session-manager-plugin"),
        ({"via": "ssm"}, (), "aws"),
        ({"via": "eice"}, (), "aws"),
        ({"jump": "bastion"}, (), "ssh"),
    ],
)
def test_a_missing_program_is_reported_first(
    settings: dict[str, str], installed: tuple[str, ...], missing: str, programs: Path
) -> None:
    install(programs, *installed)

    with pytest.raises(SshError, match=f"`{missing}` is not installed"):
        reach(rack(**settings), BOTH)


def test_the_nearest_connection_method_counts() -> None:
    nearer = Rack(
        Value("prod", GIVEN),
        {
            "cluster": Value("prod", GIVEN),
            "address": Value("auto", GIVEN),
            "ssh_user": Value("u", GIVEN),
            "ssh_port": Value("22", GIVEN),
            "via": Value("ssm", Origin(Source.CONFIG_FILE, "/config.toml")),
            "jump": Value("bastion", Origin(Source.ENVIRONMENT, "RACKCTL_JUMP")),
            "proxy_command": Value("from-option %h", Origin(Source.OPTION, "--proxy-command")),
        },
        aws=OneInstance(),  # type: ignore[arg-type]
    )

    assert proxy_of(reach(nearer, BOTH))[-1] == "exec from-option 10.0.0.9"


def test_none_connects_directly() -> None:
    target = reach(rack(proxy_command="none"), BOTH)

    assert (target.host, target.proxy) == ("203.0.113.9", None)
    assert proxy_of(reach(rack(proxy_command="nc %h", jump="none"), BOTH))[-1] == "exec nc 10.0.0.9"


def test_two_connection_methods_of_one_source_are_refused() -> None:
    with pytest.raises(UsageError, match="two connection methods"):
        reach(rack(jump="bastion", via="ssm"), BOTH)


@pytest.mark.parametrize("host", ["$(id)", "-oProxyCommand=x", "10.0.0.9 ", "a\nb"])
def test_an_address_with_shell_syntax_is_refused(host: str) -> None:
    with pytest.raises(SshError, match="an invalid address"):
        reach(rack(), replace(BOTH, public_ip=host))

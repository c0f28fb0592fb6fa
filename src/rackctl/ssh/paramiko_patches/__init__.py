"""All uses and overrides of paramiko's private names, each with its reason.

Tested with paramiko 5.1.0; tests/ssh/test_paramiko_patches.py fails if paramiko has changed these names.
"""

from rackctl.ssh.paramiko_patches.channel import notify, open_session, receive, request
from rackctl.ssh.paramiko_patches.library import DeadlineReached, Disconnected, ProtocolError, paramiko
from rackctl.ssh.paramiko_patches.private_key import load_private_key
from rackctl.ssh.paramiko_patches.transport import HostKeyTransport, Refusal, Transport

__all__ = [
    "DeadlineReached",
    "Disconnected",
    "HostKeyTransport",
    "ProtocolError",
    "Refusal",
    "Transport",
    "load_private_key",
    "notify",
    "open_session",
    "paramiko",
    "receive",
    "request",
]

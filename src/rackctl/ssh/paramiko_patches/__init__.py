"""Whatever reaches below paramiko's documented surface, each with its reason.

Tested with paramiko 5.1.0; tests/ssh/test_paramiko_patches.py fails when what is relied on here has changed.
"""

from rackctl.ssh.paramiko_patches.channel import open_session, receive, request, tell
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
    "open_session",
    "paramiko",
    "receive",
    "request",
    "tell",
]

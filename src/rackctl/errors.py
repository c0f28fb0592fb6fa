"""The errors rackctl raises on purpose, and the exit status each becomes.

::

    RackctlError           1   anything that went wrong and fits none of the below
    ├ UsageError           2   input that is rejected before AWS is called: an id, a config file, a setting
    ├ NotFound             3   rack, instance, key
    ├ AccessDenied         4   credentials, permission, region; names the IAM action that is missing
    ├ Timeout              5   what rackctl waited for, how long, and the last state
    ├ RollIncomplete       6   what is done, what is left, and the command that resumes
    └ SshError           255   connect, authentication, host key

An interrupt exits with 130, as a shell expects. Every message says what happened, to what, and what to do;
``hint`` carries the what-to-do when it stands on a line of its own.
"""

from __future__ import annotations

# What a shell reports of a process that a signal has ended: this and the signal's number.
SIGNALLED = 128


class RackctlError(Exception):
    """Base of every error that is rackctl's own to report.

    ``str(error)`` is one or more sentences for a person; ``hint`` is what to do about it, or empty.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(RackctlError):
    exit_code = 2


class NotFound(RackctlError):
    exit_code = 3


class AccessDenied(RackctlError):
    exit_code = 4


class Timeout(RackctlError):
    exit_code = 5


class RollIncomplete(RackctlError):
    exit_code = 6


class SshError(RackctlError):
    exit_code = 255

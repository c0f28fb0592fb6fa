"""The errors that rackctl raises, and the exit status of each.

::

    RackctlError           1   any failure that fits none of the below
    ├ UsageError           2   input that is rejected before AWS is called: an id, a config file, a setting
    ├ NotFound             3   rack, instance, key
    ├ AccessDenied         4   credentials, permission, region; names the IAM action that is missing
    ├ Timeout              5   what rackctl waited for, how long, and the last state
    ├ RollIncomplete       6   what is done, what is left, and the command that resumes
    └ SshError           255   connect, authentication, host key

An interrupt exits with 130, as a shell expects. Every message says what happened, to what, and what to do;
if the remedy stands on a line of its own, it is the ``hint``.
"""

from __future__ import annotations

# A shell reports this plus the signal's number for a process that a signal has ended.
SIGNALLED = 128


class RackctlError(Exception):
    """Base of every error that rackctl reports without a traceback.

    ``str(error)`` is one or more sentences for a person; ``hint`` is the remedy, or empty.
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

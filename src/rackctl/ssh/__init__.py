"""Reach an instance over SSH: address and way, host key, login, one session's streams, the local terminal.

The only importer of paramiko, which `reach`, `host_keys` and `terminal` do without.
"""

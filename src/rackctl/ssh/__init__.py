"""SSH to an instance: address, proxy, host key, login, a session's streams, the local terminal.

The only importer of paramiko; `reach`, `host_keys` and `terminal` do not import it.
"""

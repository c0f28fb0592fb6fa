"""The algorithms that are offered to servers, the preferred ones first."""

from __future__ import annotations

# curve25519 is the quickest exchange. Its hybrid with ML-KEM takes hardly longer, and resists a later quantum computer.
KEY_EXCHANGES = (
    "mlkem768x25519-sha256",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group-exchange-sha256",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group14-sha256",
)
# paramiko prefers CTR with an HMAC: 24 µs of hashing for each 32 KiB, where GCM takes 4 µs in all.
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
MACS = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
    # OpenSSH's client offers HMAC-SHA1 too: HMAC does not depend on collision resistance, which SHA-1 has lost.
    "hmac-sha1",
)

# To get a host key, a key exchange is enough: the cipher, MAC and compression that are agreed on are never used.
ANY_CIPHER = (
    *CIPHERS,
    "chacha20-poly1305@openssh.com",
    "aes128-cbc",
    "aes192-cbc",
    "aes256-cbc",
    "3des-cbc",
)
ANY_MAC = (
    *MACS,
    "umac-64-etm@openssh.com",
    "umac-128-etm@openssh.com",
    "hmac-sha1-etm@openssh.com",
    "umac-64@openssh.com",
    "umac-128@openssh.com",
    "hmac-sha1-96-etm@openssh.com",
    "hmac-md5-etm@openssh.com",
    "hmac-md5-96-etm@openssh.com",
    "hmac-sha1-96",
    "hmac-md5",
    "hmac-md5-96",
)
ANY_COMPRESSION = ("none", "zlib@openssh.com", "zlib")

# One RSA key serves several signature algorithms (RFC 8332).
OF_KEY_TYPE = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}

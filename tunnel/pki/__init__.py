"""Bearer tokens, a private certificate authority (CA), its certificates, and the files that hold them.

This package only makes and reads files; `tunnel.client` and `tunnel.server` use them. It runs on every platform of the
client. Permissions of files apply on POSIX systems only.

- `tokens`: bearer tokens and their files. `storage`: writing secrets and certificates.
- `authority`: the CA and the certificates that it issues. `names`: the names in a certificate.
- `inspection`: the use of a certificate, and whether it is valid. `expiry`: its end, in words.
"""

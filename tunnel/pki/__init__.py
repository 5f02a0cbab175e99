"""What proves who is who: bearer tokens, an authority of one's own, its certificates, and the files that hold them.

Knows nothing of connections: `tunnel.client` and `tunnel.server` are given the files that are made here. Runs wherever
the client does; permissions are a matter of POSIX systems only.

- `tokens`: bearer tokens and their files. `storage`: writing secrets and certificates.
- `authority`: the authority and what it issues. `names`: the names in a certificate.
- `inspection`: what a certificate is for, and whether it is valid. `expiry`: its end, in words.
"""

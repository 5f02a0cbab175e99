"""The protocol of the terminal service: E2B's ``process.Process`` over the Connect protocol. Sans-I/O.

- `framing`: Connect's envelopes, JSON encoding, errors and their HTTP statuses.
- `fields`: the fields of JSON messages, by proto3's mapping.
- `messages`: the requests and events of the process service, and the headers that this project adds.
- `sequences`: what is known of terminals' escape sequences.
"""

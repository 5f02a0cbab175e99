"""What the terminal service and its clients say to each other, E2B's process service over the Connect protocol.

- `framing`: Connect's envelopes, JSON values, errors and their HTTP statuses.
- `messages`: the requests and events of the process service, and the headers that are extensions of ours.
"""

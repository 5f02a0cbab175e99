"""Sandboxes of a cloud: a small one that answers as E2B's does, and the client that uses it."""

"""Restart in place: a service becomes its new version, with the same process ID, children and open connections.

The state of every part is written to a memory file. First a child of the new version restores it on trial, without our
descriptors. Only if that works, this process executes the new version, which restores the state for good. This package
defines the steps and the file; each part defines its own state (`part.Part`).

- `part`: the interface of a part of the service.
- `state`: the file, and the descriptors that are kept.
- `course`: the steps of a restart, in the old version.
- `trial`: the old version's side of the trial.
- `arrival`: the new version's side: the state that it finds at its start, on trial or for good.
- `execution`: blocked signals, and the execution itself.
"""

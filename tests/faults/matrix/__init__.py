"""The table of docs/reliability.md: `table` is what it says, `scene` one tunnel, `faults` what happens to it."""

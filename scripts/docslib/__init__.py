"""The parts of `scripts/make-docs`."""

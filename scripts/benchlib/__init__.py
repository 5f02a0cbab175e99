"""The parts of `scripts/bench`: who is measured (`peers`), on what (`lab`, `target`), what (`measures`), and what is
said about it (`report`)."""

"""Tests of child processes: their owner, what kills them and what does not, and that none is left behind."""

"""Child processes: who owns them, what kills them and what does not, and that nothing of them is left."""

"""Terminals: the service, its clients, and the shell, with real processes on real ptys."""

"""Faults on the way between our client and our bridge: what survives them, what ends, and what must be refused."""

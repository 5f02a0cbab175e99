"""The sandbox's end of a tunnel, the bridge: listening, handshakes, who may come in, and one session per tunnel."""

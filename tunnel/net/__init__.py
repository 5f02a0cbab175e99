"""What both ends of a tunnel do with sockets: non-blocking channels, TLS, and the pump that moves the bytes.

This room knows sockets and `tunnel.protocol`; it does not know who dials, who listens, or which event loop waits.
"""

"""The wire, Sans-I/O: bytes go in, bytes and events come out. No sockets, files, event loops or threads.

RFC 6455:
    frames            parse frames, write their headers
    masking           XOR of payloads
    upgrade           the client's HTTP handshake
    numbers           decimal and hexadecimal numbers that a peer wrote

Streams, one at each end of a tunnel:
    byte_stream       the interface of every stream: what the pump and its drivers call
    plain_stream      Wire 1: the bytes of one WebSocket connection
    resumable_stream  Wire 2: a session that outlives its connections
    read_buffers      the memory that sources and wires are read into

Parts of both streams:
    outbox            frames that wait for the wire
    frame_budget      how many frames a peer may send that say nothing

Parts of a plain stream:
    codec             what a message looks like, and the default: binary messages
    keepalive         when to ping, and when to give up
    beginning         the first message decides: plain stream or session

Parts of a resumable stream:
    control           the control lines, and the request to resume
    session_state     what a session is, whatever connection carries it
    session_connection  what is lost together with a connection
    sender            the sending direction: what is not acknowledged yet
    receiver          the receiving direction: what is not delivered yet
    replay            the memory of the bridge's sender
    masked_replay     the memory of the client's sender
    liveness          when a connection counts as dead
    message_size      how large a message may be, learnt from lost connections

Errors are in `tunnel.errors`.
"""

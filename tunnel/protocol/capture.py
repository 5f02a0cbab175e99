"""The state of streams for another process: captured, and restored there, when a bridge is restarted.

The state consists of plain values and bytes. Times are those of the monotonic clock, which all processes share. A plain
stream continues in the middle of a frame, in both directions. A session is captured as a detached one: data that was
received but not delivered is sent again, unless the client has ended the session.

This is for streams of a bridge only. A capture changes nothing.
"""

from __future__ import annotations

import codecs
from typing import Any

from tunnel.protocol.control import SessionOffer
from tunnel.protocol.frames import FrameParser
from tunnel.protocol.plain_stream import PlainStream
from tunnel.protocol.receiver import Receiver
from tunnel.protocol.replay import ReplayBuffer
from tunnel.protocol.resumable_stream import ResumableStream
from tunnel.protocol.sender import Sender

Tree = dict[str, Any]

# The fields of each class that are copied. The others come from the settings, belong to a connection that is over, or
# are handled below.
PARSER = ("_final", "_key", "_left", "_message", "_opcode", "closed")
KEEPALIVE = ("_pinged_at", "_silent_since", "_wrote_at", "heard_at")
BUDGET = ("_left", "_spent_at")
PLAIN = (
    "_discarding", "_sending", "_sink_at", "_source_at", "close_code", "close_reason", "close_received", "undelivered",
    "wire_is_over",
)  # fmt: skip
SENDER = ("acked", "ended", "ever_sent", "_acked_before")
MESSAGE_SIZE = ("_fruitless", "is_hopeless", "limit")
RECEIVER = ("_delivered_bytes", "_discarding", "fin_delivered", "undelivered")
SESSION = ("confirmed", "has_heard_text", "over")
OFFER = ("id", "key", "window", "retain")


def _fields(of: object, names: tuple[str, ...]) -> Tree:
    return {name.lstrip("_"): getattr(of, name) for name in names}


def _set_fields(of: object, names: tuple[str, ...], tree: Tree) -> None:
    for name in names:
        value = tree[name.lstrip("_")]
        setattr(of, name, bytes(value) if isinstance(value, memoryview) else value)


# ---- plain


def capture_plain(stream: PlainStream) -> Tree:
    """Return the state of a plain stream that has not failed."""
    outbox = stream._outbox
    return {
        **_fields(stream, PLAIN),
        "sink": list(stream._sink),
        "pieces": list(outbox.pieces),
        "pong": outbox._pong,
        "close_queued": outbox.close_queued,
        "keepalive": _fields(stream.keepalive, KEEPALIVE),
        "budget": _fields(stream._budget, BUDGET),
        "parser": _capture_parser(stream._parser),
    }


def restore_plain(stream: PlainStream, tree: Tree) -> None:
    """Restore the captured state in a new stream with the same settings."""
    _set_fields(stream, PLAIN, tree)
    stream._sink = [bytes(piece) for piece in tree["sink"]]
    outbox = stream._outbox
    outbox.pieces = [bytes(piece) for piece in tree["pieces"]]
    outbox._pong = None if tree["pong"] is None else bytes(tree["pong"])
    outbox.close_queued = tree["close_queued"]
    _set_fields(stream.keepalive, KEEPALIVE, tree["keepalive"])
    _set_fields(stream._budget, BUDGET, tree["budget"])
    _restore_parser(stream._parser, tree["parser"])


def _capture_parser(parser: FrameParser) -> Tree:
    text = None if parser._text is None else list(parser._text.getstate())
    return {**_fields(parser, PARSER), "head": parser._head, "control": parser._control, "text": text}


def _restore_parser(parser: FrameParser, tree: Tree) -> None:
    _set_fields(parser, PARSER, tree)
    parser._head = bytearray(tree["head"])
    parser._control = bytearray(tree["control"])
    if tree["text"] is not None:
        held, flags = tree["text"]
        parser._text = codecs.getincrementaldecoder("utf-8")()
        parser._text.setstate((bytes(held), flags))


# ---- resumable


def capture_resumable(stream: ResumableStream) -> Tree:
    """Return the state of a session at the bridge that has not failed, as if it were detached now."""
    session = stream.session
    offer, replay = session.offer, session.sender.replay
    if offer is None or not isinstance(replay, ReplayBuffer):
        raise TypeError("not a bridge's end of a session")
    failure = session._source_failure
    return {
        **_fields(session, SESSION),
        "offer": _fields(offer, OFFER),
        "source_failure": None if failure is None else list(failure),
        "budget": _fields(session.budget, BUDGET),
        "sender": _capture_sender(session.sender, replay, attached=stream.attached),
        "receiver": _capture_receiver(session.receiver, keeps=session.over),
    }


def offer_of(tree: Tree) -> SessionOffer:
    """Return the offer of a captured session, with which to make the new stream."""
    return SessionOffer(**tree["offer"])


def restore_resumable(stream: ResumableStream, tree: Tree) -> None:
    """Restore the captured state in a new stream with the same settings and the offer of `offer_of`; it is detached."""
    session = stream.session
    stream.detach()
    _set_fields(session, SESSION, tree)
    session._source_failure = None if tree["source_failure"] is None else tuple(tree["source_failure"])
    _set_fields(session.budget, BUDGET, tree["budget"])
    _restore_sender(session.sender, tree["sender"])
    _restore_receiver(session.receiver, tree["receiver"])


def _capture_sender(sender: Sender, replay: ReplayBuffer, *, attached: bool) -> Tree:
    size = _fields(sender.message_size, MESSAGE_SIZE)
    if attached and sender.progress:
        # As in `MessageSize.lost`: the connection worked, and is lost because of the restart.
        size.update(fruitless=0, is_hopeless=False)
    return {
        **_fields(sender, SENDER),
        "message_size": size,
        "base": replay.base,
        "unacknowledged": [segment.chunk[segment.start : segment.end] for segment in replay._segments],
    }


def _restore_sender(sender: Sender, tree: Tree) -> None:
    _set_fields(sender, SENDER, tree)
    _set_fields(sender.message_size, MESSAGE_SIZE, tree["message_size"])
    replay = sender.replay
    replay.base = replay.next = replay.end = tree["base"]
    for piece in tree["unacknowledged"]:
        sender.append(memoryview(piece))


def _capture_receiver(receiver: Receiver, *, keeps: bool) -> Tree:
    tree = _fields(receiver, RECEIVER)
    if keeps:
        # The client has ended the session and sends nothing again; the target must still get all of it.
        pieces = [*receiver.pieces, receiver._held] if receiver._held else list(receiver.pieces)
        tree.update(pieces=pieces, received=receiver._received, fin_at=receiver._fin_at)
    return tree


def _restore_receiver(receiver: Receiver, tree: Tree) -> None:
    _set_fields(receiver, RECEIVER, tree)
    receiver.drop()
    if "pieces" in tree:
        receiver.pieces = [bytes(piece) for piece in tree["pieces"]]
        receiver._received = tree["received"]
        receiver._fin_at = tree["fin_at"]

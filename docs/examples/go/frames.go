package main

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

const (
	closeNormal    = 1000
	closeGoingAway = 1001
	closeProtocol  = 1002
	closeNoCode    = 1005 // a Close without a code; never on the wire
	closeText      = 1007
	closePolicy    = 1008
	closeTooBig    = 1009
	closeInput     = 1011
	closeSilent    = 4003
)

// violation is a breach of RFC 6455 by the peer, with the Close code that answers it.
type violation struct {
	code int
	text string
}

func (v violation) Error() string { return v.text }

// event is a piece of a message, a control frame, or the end of the connection.
type event struct {
	op           byte // opText, opBinary, opPing, opPong or opClose
	data         []byte
	frameStarts  bool
	frameEnds    bool
	messageEnds  bool
	continuation bool  // the frame is not the first one of its message
	code         int   // of a Close
	err          error // the connection has ended; nothing follows
}

// conn is one WebSocket connection, with a goroutine that reads and one that writes.
type conn struct {
	net.Conn
	br    *bufio.Reader
	in    chan event
	ready chan struct{} // the writer can take something
	out   chan []byte   // whole frames
	done  chan struct{}
	once  sync.Once
	idle  bool         // the writer waits for what send gives it; only the loops of the wires use this
	heard atomic.Int64 // when the last byte came
}

func newConn(nc net.Conn) *conn {
	c := &conn{
		Conn:  nc,
		in:    make(chan event),
		ready: make(chan struct{}),
		out:   make(chan []byte),
		done:  make(chan struct{}),
	}
	c.br = bufio.NewReaderSize(c, 64<<10)
	return c
}

// Read notes when bytes come: any byte is life.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

func (c *conn) lastHeard() time.Time { return time.Unix(0, c.heard.Load()) }

// start begins to read and write frames, once the upgrade is done.
func (c *conn) start() {
	go func() {
		if err := c.readFrames(); err != nil {
			c.emit(event{err: err})
		}
	}()
	go c.writeFrames()
}

// abandon drops the connection at once. Nothing comes from it any more.
func (c *conn) abandon() {
	c.once.Do(func() {
		close(c.done)
		_ = c.Conn.Close()
	})
}

// send gives the writer whole frames. It must be idle.
func (c *conn) send(b []byte) {
	c.idle = false
	c.out <- b
}

// emit hands an event over. It returns false if nobody wants it any more.
func (c *conn) emit(e event) bool {
	select {
	case c.in <- e:
		return true
	case <-c.done:
		return false
	}
}

type header struct {
	op     byte
	fin    bool
	length uint64
}

// header reads the head of a frame. See "Frames, on both wires".
func (c *conn) header() (header, error) {
	size := 2
	b, err := c.br.Peek(size)
	if err != nil {
		return header{}, err
	}
	switch b[1] & 0x7f {
	case 126:
		size = 4
	case 127:
		size = 10
	}
	if b, err = c.br.Peek(size); err != nil {
		return header{}, err
	}
	h := header{op: b[0] & 0x0f, fin: b[0]&0x80 != 0}
	least := uint64(0)
	switch size {
	case 2:
		h.length = uint64(b[1] & 0x7f)
	case 4:
		h.length, least = uint64(binary.BigEndian.Uint16(b[2:])), 126
	case 10:
		h.length, least = binary.BigEndian.Uint64(b[2:]), 1<<16
	}
	bad := ""
	switch {
	case b[0]&0x70 != 0:
		bad = "a reserved bit is set"
	case b[1]&0x80 != 0:
		bad = "a frame of the bridge is masked"
	case h.length < least || h.length >= 1<<63:
		bad = "the length of a frame is not well-formed"
	case h.op > opPong || (h.op > opBinary && h.op < opClose):
		bad = "unknown opcode"
	case h.op >= opClose && (!h.fin || h.length > 125):
		bad = "a control frame is fragmented or too long"
	}
	if bad != "" {
		return header{}, violation{closeProtocol, bad}
	}
	_, err = c.br.Discard(size)
	return h, err
}

// readFrames passes payload on as it comes, until the connection ends.
// It returns nil if nobody wants it.
func (c *conn) readFrames() error {
	var message byte // opcode of the message whose fragments come, or 0
	var tail []byte  // unfinished character at the end of the text so far
	for {
		h, err := c.header()
		if err != nil {
			return err
		}
		if h.op >= opClose {
			e := event{op: h.op, data: make([]byte, h.length)}
			if _, err := io.ReadFull(c.br, e.data); err != nil {
				return err
			}
			if h.op == opClose {
				if e.code, err = closeCode(e.data); err != nil {
					return err
				}
				e.data = e.data[min(2, len(e.data)):] // the reason
			}
			if !c.emit(e) {
				return nil
			}
			if h.op == opClose {
				_, _ = io.Copy(io.Discard, c.br) // nothing counts any more but the end
				return io.EOF
			}
			continue
		}
		continuation := h.op == opContinuation
		if continuation != (message != 0) {
			return violation{closeProtocol, "messages are interleaved"}
		}
		if !continuation {
			message = h.op
		}
		for first, left := true, h.length; first || left > 0; first = false {
			var piece []byte
			if left > 0 {
				if _, err := c.br.Peek(1); err != nil {
					return err
				}
				piece = make([]byte, min(int64(left), int64(min(c.br.Buffered(), 32<<10))))
				_, _ = io.ReadFull(c.br, piece) // it is all in the buffer
				left -= uint64(len(piece))
			}
			ends := h.fin && left == 0
			if message == opText {
				var ok bool
				if tail, ok = checkText(tail, piece, ends); !ok {
					return violation{closeText, "a text message is not UTF-8"}
				}
			}
			if !c.emit(event{op: message, data: piece, frameStarts: first, frameEnds: left == 0,
				messageEnds: ends, continuation: continuation}) {
				return nil
			}
		}
		if h.fin {
			message = 0
		}
	}
}

// checkText checks UTF-8 across the pieces of a message. It returns the unfinished character at the end.
func checkText(tail, piece []byte, last bool) ([]byte, bool) {
	b := append(tail, piece...)
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			return b, !last && !utf8.FullRune(b)
		}
		b = b[n:]
	}
	return nil, true
}

// closeCode returns the code of a Close; the codes are those of RFC 6455, section 7.4.
func closeCode(payload []byte) (int, error) {
	if len(payload) == 0 {
		return closeNoCode, nil
	}
	if len(payload) == 1 {
		return 0, violation{closeProtocol, "a Close with half a code"}
	}
	code := int(binary.BigEndian.Uint16(payload))
	known := code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006
	if !known && (code < 3000 || code > 4999) {
		return 0, violation{closeProtocol, fmt.Sprintf("Close code %d is not allowed", code)}
	}
	if !utf8.Valid(payload[2:]) {
		return 0, violation{closeText, "the reason of a Close is not UTF-8"}
	}
	return code, nil
}

// writeFrames writes what it is given. It leaves errors to the reader: it still gets what came before them.
func (c *conn) writeFrames() {
	for {
		select {
		case c.ready <- struct{}{}:
		case <-c.done:
			return
		}
		select {
		case b := <-c.out:
			if c.writeAll(b) != nil {
				return
			}
		case <-c.done:
			return
		}
	}
}

// writeAll ends the connection if the peer accepts no byte for stall-limit.
func (c *conn) writeAll(b []byte) error {
	for {
		_ = c.SetWriteDeadline(time.Now().Add(stallLimit))
		n, err := c.Write(b)
		b = b[n:]
		switch {
		case err == nil:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded) && n > 0:
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			_ = c.Conn.Close()
		}
		return err
	}
}

// farewell writes last frames, tells the peer that nothing follows, and gives it time to hang up:
// to close a socket with unread bytes would destroy what is still on its way.
func (c *conn) farewell(last []byte) {
	defer c.abandon()
	if c.idle {
		c.send(last)
		last = nil
	}
	limit := time.After(farewellClient)
	ready := c.ready
	for {
		select {
		case <-ready:
			if last != nil {
				c.send(last)
				last = nil
				continue
			}
			if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
			ready, limit = nil, time.After(lingerClient)
		case e := <-c.in:
			if e.err != nil {
				return
			}
		case <-limit:
			return
		}
	}
}

// appendFrame appends a masked frame. Each has a fresh random key.
func appendFrame(dst []byte, op byte, payload []byte) []byte {
	dst = append(dst, 0x80|op)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, 0x80|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, 0x80|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0x80|127), uint64(n))
	}
	var key [4]byte
	_, _ = rand.Read(key[:])
	dst = append(dst, key[:]...)
	start := len(dst)
	dst = append(dst, payload...)
	for i := range payload {
		dst[start+i] ^= key[i&3]
	}
	return dst
}

func appendLine(dst []byte, format string, args ...any) []byte {
	return appendFrame(dst, opText, fmt.Appendf(nil, format, args...))
}

func appendClose(dst []byte, code int, reason string) []byte {
	if code == closeNoCode {
		return appendFrame(dst, opClose, nil)
	}
	payload := binary.BigEndian.AppendUint16(nil, uint16(code))
	return appendFrame(dst, opClose, append(payload, reason...))
}

// budget is what a peer may spend on frames that say nothing. See "Frames, on both wires".
type budget struct {
	left  float64
	since time.Time
}

func newBudget() *budget { return &budget{idleFrames, time.Now()} }

// spend takes n frames. It returns false if the budget is used up.
func (b *budget) spend(n int) bool {
	now := time.Now()
	b.left = min(float64(idleFrames), b.left+now.Sub(b.since).Seconds()*idleFramesPerSecond) - float64(n)
	b.since = now
	return b.left >= 0
}

// allows counts an event that says nothing on either wire: a ping, a pong, or an empty data frame, but not the empty
// frame that ends a fragmented message. It returns false if the budget is used up.
func (b *budget) allows(e event) bool {
	switch e.op {
	case opPing, opPong:
		return b.spend(1)
	case opText, opBinary:
		if e.frameStarts && e.frameEnds && len(e.data) == 0 && !(e.continuation && e.messageEnds) {
			return b.spend(1)
		}
	}
	return true
}

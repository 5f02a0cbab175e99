package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// plain is a tunnel over a single connection. See "Wire 1: plain".
type plain struct {
	*tunnel
	*conn
	out     []byte // frames to be written
	pong    []byte // the answer to the last ping
	closed  bool   // our Close is in out, or sent
	piece   []byte // for the sink
	writing bool   // the sink has a piece
	late    bool   // the client has waited for a session line in vain: none may come any more
	failure error  // why the tunnel will not end well
	pinged  time.Time
	budget  *budget
}

// plain carries the streams until the bridge's Close. first are events that have been read already.
func (t *tunnel) plain(c *conn, first []event, late bool) error {
	defer c.abandon()
	p := &plain{tunnel: t, conn: c, late: late, budget: newBudget()}
	timer := time.NewTicker(tick)
	defer timer.Stop()
	for {
		p.write()
		// The source is read while the peer takes bytes, and the connection while the sink does.
		source, in, ready := t.source, c.in, c.ready
		var pieces chan<- []byte
		if p.closed || len(p.out) > 0 {
			source = nil
		}
		if p.blocked() {
			in = nil
		}
		if p.piece != nil {
			pieces = t.sink.pieces
		}
		if c.idle {
			ready = nil
		}
		if len(first) > 0 && in != nil {
			e := first[0]
			first = first[1:]
			if over, err := p.receive(e); over {
				return err
			}
			continue
		}
		select {
		case <-ready:
			c.idle = true
		case k := <-source:
			p.read(k)
		case pieces <- p.piece:
			p.piece, p.writing = nil, true
		case err := <-t.sink.taken:
			p.writing = false
			if err != nil {
				return p.stop(errStopped{}, closeNormal, "") // nobody is there to read
			}
		case s := <-t.signals:
			stopped := errStopped{s}
			if !stopped.gentle() {
				return p.stop(stopped, closeGoingAway, "")
			}
			select {
			case k := <-source: // ssh's last words may still be in the pipe
				p.read(k)
			default:
			}
			return p.stop(stopped, closeNormal, "")
		case now := <-timer.C:
			if err := p.judge(now); err != nil {
				return err
			}
		case e := <-in:
			if over, err := p.receive(e); over {
				return err
			}
		}
	}
}

// blocked tells whether the sink has something to do.
func (p *plain) blocked() bool { return p.piece != nil || p.writing }

// read takes what came from the source. See "How ends are passed on".
func (p *plain) read(k chunk) {
	switch {
	case k.err == nil:
		p.out = appendFrame(p.out, opBinary, k.data)
	case k.err == io.EOF:
		p.close(closeNormal, "")
	default:
		p.failure = fmt.Errorf("the input broke off: %w", k.err)
		p.close(closeInput, "the input broke off")
	}
}

// close queues our Close, behind what was read.
func (p *plain) close(code int, reason string) {
	if !p.closed {
		p.out, p.closed = appendClose(p.out, code, reason), true
	}
}

// write gives the writer what there is.
func (p *plain) write() {
	if !p.idle {
		return
	}
	if !p.closed {
		p.out = append(p.pong, p.out...)
	}
	p.pong = nil
	if len(p.out) > 0 {
		p.send(p.out)
		p.out = nil
	}
}

// stop ends the tunnel with a Close. It returns why.
func (p *plain) stop(why error, code int, reason string) error {
	p.close(code, reason)
	p.farewell(p.out)
	return why
}

// receive takes an event. It returns whether the tunnel is over, and why if it did not end well.
func (p *plain) receive(e event) (over bool, err error) {
	var bad violation
	switch {
	case errors.As(e.err, &bad):
		return true, p.stop(bad, bad.code, bad.text)
	case e.err != nil:
		return true, fmt.Errorf("the connection ended without a Close: %w", e.err)
	case !p.budget.allows(e):
		return true, p.stop(errTalkative, closePolicy, "")
	case e.op == opPing:
		p.pong = appendFrame(nil, opPong, e.data)
	case e.op == opClose:
		if e.code != closeNormal && e.code != closeNoCode && p.failure == nil {
			p.failure = fmt.Errorf("the tunnel is over: %w", lost(e))
		}
		if p.failure == nil {
			p.sink.end()
		}
		return true, p.stop(p.failure, e.code, "")
	case len(e.data) > 0:
		if p.late && strings.HasPrefix(string(e.data), sessionWord) {
			return true, p.stop(errors.New("a session line came too late"), closeProtocol, "a session line came too late")
		}
		p.late = false
		p.piece = e.data
	}
	return false, nil
}

// judge checks the timers. See "Timers of Wire 1".
func (p *plain) judge(now time.Time) error {
	heard := p.lastHeard()
	silence := now.Sub(heard)
	if heard.After(p.pinged) || p.blocked() { // who does not read does not judge
		p.pinged = time.Time{}
	}
	switch {
	case p.blocked():
	case p.closed && silence > closeLimit:
		return errors.New("the bridge did not answer the Close")
	case p.closed:
	case p.pinged.IsZero() && silence > pingInterval:
		p.out, p.pinged = appendFrame(p.out, opPing, nil), now
	case !p.pinged.IsZero() && now.Sub(p.pinged) > pingTimeout:
		return p.stop(errSilent, closeSilent, "")
	}
	return nil
}

package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// session is a stream each way that outlives its connections. See "Wire 2: resumable" and "Offsets of a stream".
type session struct {
	*tunnel
	id     string
	key    []byte
	window int64
	retain time.Duration
	epoch  int64

	// What goes to the bridge.
	kept       []byte // read from the source, not acknowledged yet
	acked      int64  // the number of the first byte of kept
	sent       int64  // the number of the next byte to send on this connection
	reached    int64  // the highest value of sent on any connection
	sourceEnd  error  // io.EOF, or why the source broke; nil before
	finSent    bool   // on this connection
	finReached bool   // on any connection
	finAcked   bool

	// What comes from the bridge.
	queue     [][]byte // received, not written yet
	held      []byte   // end of a frame that is not whole yet
	writing   int64    // bytes that the sink is about to write
	delivered int64
	next      int64 // the number of the next byte that comes
	fin       int64 // where the stream ends, or -1
	ended     bool  // the sink is closed: the fin is delivered
	told      int64 // our last ack

	limit  int64 // payload of a message that we send
	wasted int   // connections in a row that were lost with a large message in vain
	barren int   // connections in a row that were lost before anything new was acknowledged
	since  time.Time
	outage *outage
	budget *budget
}

// fatal ends the session. code is that of the error line for the bridge; empty if it gets none.
type fatal struct{ code, text string }

func (f fatal) Error() string { return f.text }

func protocolError(format string, args ...any) error {
	return fatal{"protocol", fmt.Sprintf(format, args...)}
}

// connLost says that a connection is over, and the session is not.
type connLost struct{ event }

func (l connLost) Error() string { return lost(l.event).Error() }

var (
	errSilent    = errors.New("the bridge does not answer")
	errTalkative = fatal{"policy", "the bridge sends too many frames without effect"}
)

// number reads a decimal number below 2^63, of 19 digits at most.
func number(s string) (int64, bool) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err == nil && len(s) <= 19
}

// isHex tells whether s is n lower-case hexadecimal digits.
func isHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

// newSession reads the session line. See "Control lines".
func newSession(t *tunnel, line string) (*session, error) {
	s := &session{tunnel: t, fin: -1, limit: largestMessage, budget: newBudget()}
	retain := int64(-1)
	for _, field := range strings.Split(line, " ")[1:] {
		i := strings.Index(field, "=") + 1
		switch name, value := field[:i], field[i:]; name {
		case "id=":
			s.id = value
		case "key=":
			if isHex(value, 64) {
				s.key, _ = hex.DecodeString(value)
			}
		case "window=":
			s.window, _ = number(value)
		case "retain=":
			if n, ok := number(value); ok {
				retain = n
			}
		}
	}
	if !isHex(s.id, 32) || s.key == nil || s.window <= 0 || s.window > windowLimit || retain < 0 ||
		len(line) > lineAcceptLimit {
		return nil, errors.New("the session line is malformed")
	}
	s.retain = time.Duration(min(retain, int64(reconnectFor/time.Second))) * time.Second
	return s, nil
}

// run carries the session over its connections. See "Course of a session".
func (s *session) run(c *conn) error {
	a := &attachment{session: s, conn: c, ackNow: true} // "ack 0" confirms the session
	for {
		err := a.serve()
		c.abandon()
		var lost connLost
		if !errors.As(err, &lost) {
			return err // nil if both streams are whole
		}
		if err := s.detach(a, lost); err != nil {
			return err
		}
		var first []event
		if c, first, err = s.reconnect(); err != nil {
			return err
		}
		a = &attachment{session: s, conn: c, first: first, ackedBefore: s.ackedNumbers()}
		a.ask(deadAfter)
	}
}

// unacked tells whether an ack of the bridge is due.
func (s *session) unacked() bool { return s.sent > s.acked || s.finSent && !s.finAcked }

// ackedNumbers is the last ack of the bridge; the end of the stream counts as one more.
func (s *session) ackedNumbers() int64 {
	if s.finAcked {
		return s.acked + 1
	}
	return s.acked
}

// ack is our current ack.
func (s *session) ack() int64 {
	if s.ended {
		return s.delivered + 1
	}
	return s.delivered
}

// take takes a chunk of the source.
func (s *session) take(k chunk) {
	s.kept = append(s.kept, k.data...)
	s.sourceEnd = k.err
}

// took notes that the sink has written its piece.
func (s *session) took() {
	s.delivered += s.writing
	s.writing = 0
}

// accept takes bytes of the stream. The sink may have had some of them before the last connection was lost.
func (s *session) accept(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if s.fin >= 0 {
		return protocolError("data behind the fin")
	}
	known := max(0, min(int64(len(data)), s.delivered+s.writing-s.next))
	s.next += int64(len(data))
	if s.next-s.delivered > s.window {
		return protocolError("more bytes than the window")
	}
	if data = data[known:]; len(data) > 0 {
		s.queue = append(s.queue, data)
	}
	return nil
}

// acknowledged drops what the bridge has delivered. It tells whether that is anything new.
func (s *session) acknowledged(n int64) (news bool, err error) {
	least, most := s.ackedNumbers(), s.reached
	if s.finReached {
		most++
	}
	if n < least || n > most {
		return false, protocolError("ack %d is not from %d to %d", n, least, most)
	}
	if n > s.reached {
		s.finAcked = true
	}
	bytes := min(n, s.reached)
	s.kept = s.kept[bytes-s.acked:]
	s.acked = bytes
	s.sent = max(s.sent, bytes)
	return n > least, nil
}

// attachment is what a session loses together with a connection.
type attachment struct {
	*session
	*conn
	first  []event // read already
	out    []byte  // pings
	pong   []byte  // the answer to the last ping
	line   []byte  // control line that is not whole yet
	frames int     // of that line
	ackNow bool
	ackAt  <-chan time.Time

	ackedBefore int64 // the bridge's last ack when the connection began
	large       int64 // the highest number that went out in a message above smallest-message

	asked    time.Time     // when a ping of either kind went out that nothing has answered
	patience time.Duration // for the answer
	lineAt   time.Time     // when the last ping line went out
	news     bool          // data came since then
	dueSince time.Time     // since when an ack is due
	checked  time.Time     // when the timers were checked
}

// serve moves bytes until the connection or the session is over. It returns nil when both streams are whole.
func (a *attachment) serve() error {
	s, c := a.session, a.conn
	timer := time.NewTicker(tick)
	defer timer.Stop()
	a.checked = time.Now()
	for {
		if s.fin == s.delivered && !s.ended {
			s.sink.end()
			s.ended, a.ackNow = true, true
		}
		if s.ended && s.finAcked {
			c.farewell(appendClose(appendLine(appendLine(nil, "ack %d", s.ack()), "end"), closeNormal, ""))
			return nil
		}
		if s.sourceEnd != nil && s.sourceEnd != io.EOF && len(s.kept) == 0 {
			return a.stop(fatal{"input", fmt.Sprintf("the input broke off: %v", s.sourceEnd)})
		}
		if c.idle {
			if b := a.output(); len(b) > 0 {
				c.send(b)
			}
		}
		source, ready := s.source, c.ready
		var pieces chan<- []byte
		var piece []byte
		if s.sourceEnd != nil || int64(len(s.kept)) >= min(s.window, windowDefault) {
			source = nil
		}
		if len(s.queue) > 0 && s.writing == 0 {
			pieces, piece = s.sink.pieces, s.queue[0]
		}
		if c.idle {
			ready = nil
		}
		if len(a.first) > 0 {
			e := a.first[0]
			a.first = a.first[1:]
			if err := a.receive(e); err != nil {
				return a.stop(err)
			}
			continue
		}
		select {
		case <-ready:
			c.idle = true
		case e := <-c.in:
			if err := a.receive(e); err != nil {
				return a.stop(err)
			}
		case k := <-source:
			s.take(k)
		case pieces <- piece:
			s.writing = int64(len(piece))
			s.queue = s.queue[1:]
		case err := <-s.sink.taken:
			if err != nil {
				return a.stop(errStopped{})
			}
			s.took()
			if s.delivered-s.told >= min(s.window/4, ackBytes) {
				a.ackNow = true
			} else if a.ackAt == nil {
				a.ackAt = time.After(ackDelay)
			}
		case <-a.ackAt:
			a.ackNow = true
		case signal := <-s.signals:
			return a.stop(errStopped{signal})
		case <-timer.C:
			if err := a.judge(time.Now()); err != nil {
				return err
			}
		}
	}
}

// output is what can be written now: control frames, and one message of data.
func (a *attachment) output() []byte {
	s := a.session
	b := append(a.pong, a.out...)
	a.pong, a.out = nil, nil
	if a.ackNow {
		s.told = s.ack()
		a.ackNow, a.ackAt = false, nil
		b = appendLine(b, "ack %d", s.told)
	}
	wasDue := s.unacked()
	end := s.acked + int64(len(s.kept))
	if n := min(min(end, s.acked+s.window)-s.sent, s.limit); n > 0 {
		at := s.sent - s.acked
		b = appendFrame(b, opBinary, s.kept[at:at+n])
		s.sent += n
		s.reached = max(s.reached, s.sent)
		if n > smallestMessage {
			a.large = s.sent
		}
	}
	if s.sourceEnd == io.EOF && s.sent == end && !s.finSent && !s.finAcked {
		b = appendLine(b, "fin %d", s.sent)
		s.finSent, s.finReached = true, true
	}
	if !wasDue && s.unacked() {
		a.dueSince = time.Now()
	}
	return b
}

// receive takes an event. An error ends the connection (connLost) or the session.
func (a *attachment) receive(e event) error {
	s := a.session
	if e.err != nil || e.op == opClose {
		return connLost{e}
	}
	if s.outage != nil {
		s.outage.over()
		s.outage = nil
	}
	if !s.budget.allows(e) {
		return errTalkative
	}
	switch e.op {
	case opPing:
		a.pong = appendFrame(nil, opPong, e.data)
	case opText:
		return a.text(e)
	case opBinary:
		a.news = a.news || len(e.data) > 0
		s.held = append(s.held, e.data...)
		n := len(s.held)
		if !e.frameEnds {
			n = max(0, n-heldBack)
		}
		data := s.held[:n:n]
		s.held = append([]byte(nil), s.held[n:]...)
		return s.accept(data)
	}
	return nil
}

// text takes a piece of a control line.
func (a *attachment) text(e event) error {
	a.line = append(a.line, e.data...)
	if e.frameEnds && len(e.data) > 0 {
		a.frames++
	}
	if len(a.line) > lineAcceptLimit {
		return protocolError("a control line is too long")
	}
	if !e.messageEnds {
		return nil
	}
	line, frames := string(a.line), max(1, a.frames)
	a.line, a.frames = nil, 0
	news, err := a.control(line)
	if err == nil && !news && !a.budget.spend(frames) {
		err = errTalkative
	}
	return err
}

// control does what a line says. It tells whether that changed anything. See "Control lines" and "Violations".
func (a *attachment) control(line string) (news bool, err error) {
	s := a.session
	word, rest := line, ""
	if i := strings.Index(line, " "); i >= 0 {
		word, rest = line[:i], line[i+1:]
	}
	n, isNumber := number(rest)
	switch word {
	case "ack":
		if !isNumber {
			return false, protocolError("a malformed ack")
		}
		a.dueSince = time.Now() // any ack will do
		return s.acknowledged(n)
	case "fin":
		switch {
		case !isNumber:
			return false, protocolError("a malformed fin")
		case s.fin == n:
			return false, nil
		case s.fin >= 0 || n != s.next:
			return false, protocolError("a fin that is not where the data ended")
		}
		s.fin = n
		return true, nil
	case "ping":
		if line != "ping" {
			return false, protocolError("a malformed ping")
		}
		a.ackNow = true
	case "error":
		return false, errorFromBridge(rest)
	case "session", "end":
		return false, protocolError("%q inside a session", word)
	}
	return false, nil // later versions may have more lines
}

// ask queues a ping line. The connection is dead if nothing comes within d.
func (a *attachment) ask(d time.Duration) {
	a.out = appendLine(a.out, "ping")
	a.news, a.lineAt = false, time.Now()
	if a.asked.IsZero() {
		a.asked, a.patience = a.lineAt, d
	}
}

// judge checks the timers. An error says that the connection is dead. See "Timers of Wire 2".
func (a *attachment) judge(now time.Time) error {
	if slept(a.checked, now, tick) {
		a.asked = time.Time{}
		a.ask(probeLimit)
	}
	a.checked = now
	heard := a.lastHeard()
	silence := now.Sub(heard)
	if heard.After(a.asked) {
		a.asked = time.Time{}
	}
	due := now.Sub(a.dueSince)
	switch {
	case !a.asked.IsZero():
		if now.Sub(a.asked) > a.patience {
			return connLost{event{err: errSilent}}
		}
	case (a.unacked() || a.news) && silence > requestAfter:
		a.ask(deadAfter)
	case a.unacked() && due > ackLimit/2 && now.Sub(a.lineAt) > time.Second:
		a.ask(deadAfter)
	case silence > pingInterval:
		a.out = appendFrame(a.out, opPing, nil)
		a.asked, a.patience = now, deadAfter
	}
	if a.unacked() && due > ackLimit {
		return connLost{event{err: errSilent}}
	}
	return nil
}

// slept tells whether much more time has passed than should have: the machine was suspended. The monotonic clock may
// stand still meanwhile, so this asks the wall clock.
func slept(before, now time.Time, expected time.Duration) bool {
	return now.Round(0).Sub(before.Round(0)) > expected+jump
}

// stop says farewell if the session is over. It returns why.
func (a *attachment) stop(why error) error {
	s := a.session
	var end fatal
	var stopped errStopped
	var last []byte
	switch {
	case errors.As(why, &end) && end.code != "":
		last = errorLine(end.code, end.text)
	case errors.As(why, &stopped) && stopped.gentle():
		if s.sourceEnd == nil {
			select {
			case k := <-s.source: // ssh's last words may still be in the pipe
				s.take(k)
			default:
			}
		}
		for b := a.output(); len(b) > 0; b = a.output() {
			last = append(last, b...)
		}
		last = appendLine(appendLine(last, "ack %d", s.ack()), "end")
	case errors.As(why, &stopped):
		last = errorLine("interrupted", "")
	default:
		return why
	}
	code := closeNormal
	if end.code == "policy" {
		code = closePolicy
	}
	a.farewell(appendClose(last, code, ""))
	return why
}

// errorLine is an error line of ASCII, of line-limit at most.
func errorLine(code, text string) []byte {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
	return appendLine(nil, "error %s %.200s", code, text)
}

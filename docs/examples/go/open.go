package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	sessionWord = "session id="
	errorWord   = "error "
	ackWord     = "ack "
)

// open dials and finds out which wire the bridge speaks; until then this client sends nothing. See "Choice of the
// wire".
func (t *tunnel) open(resumable bool) error {
	offer := plainProtocol
	if resumable {
		offer += ", " + resumeProtocol
	}
	for starts := 0; ; {
		c, answer, err := t.dial(offer, "")
		if err != nil {
			return err
		}
		if offer == plainProtocol {
			return t.plain(c, nil, false)
		}
		named := answer.Get("Sec-WebSocket-Protocol") == resumeProtocol
		wait := firstWait // undecided
		if named {
			wait = requestAfter + deadAfter
		}
		first, err := t.firstMessage(c, wait)
		if errors.As(err, new(errStopped)) {
			c.abandon()
			return err
		}
		text := len(first) > 0 && first[0].op == opText
		data := joined(first)
		switch {
		case named && err != nil: // lost, or silent
			c.abandon()
			if starts++; starts == falseStarts {
				return fmt.Errorf("the connection opens, but no session line comes: %w", err)
			}
		case text && strings.HasPrefix(data, sessionWord):
			s, err := newSession(t, data)
			if err != nil {
				c.farewell(appendClose(errorLine("protocol", err.Error()), closeNormal, ""))
				return err
			}
			return s.run(c)
		case named && text && strings.HasPrefix(data, errorWord):
			c.abandon()
			return errorFromBridge(strings.TrimPrefix(data, errorWord))
		case named: // another server
			c.abandon()
			offer = plainProtocol
		case strings.HasPrefix(data, sessionWord): // an edge makes data of text
			c.farewell(appendClose(appendLine(nil, "end"), closeNormal, ""))
			offer = plainProtocol
		default:
			return t.plain(c, first, len(first) == 0)
		}
	}
}

// firstMessage waits for the first message: all of it if it may be a control line, else so much of it that data can
// be told from one. It answers pings. With an error it returns what has come nevertheless.
func (t *tunnel) firstMessage(c *conn, wait time.Duration) (events []event, err error) {
	timer := time.After(wait)
	for {
		select {
		case e := <-c.in:
			switch {
			case e.err != nil, e.op == opClose:
				return append(events, e), lost(e)
			case e.op == opPing:
				select {
				case <-c.ready:
					c.send(appendFrame(nil, opPong, e.data))
				case <-timer:
					return events, errors.New("nothing can be sent")
				}
			case e.op != opPong:
				events = append(events, e)
				if e.messageEnds || !mayBeLine(e.op, joined(events)) {
					return events, nil
				}
			}
		case <-timer:
			return events, fmt.Errorf("nothing came within %v", wait)
		case s := <-t.signals:
			return nil, errStopped{s}
		}
	}
}

// mayBeLine tells whether an unfinished message may be a line that decides something.
func mayBeLine(op byte, data string) bool {
	for _, word := range []string{sessionWord, errorWord, ackWord} {
		if strings.HasPrefix(word, data) {
			return true
		}
		if strings.HasPrefix(data, word) {
			return op == opText && len(data) <= lineAcceptLimit
		}
	}
	return false
}

// joined returns the payload of the events.
func joined(events []event) string {
	var b []byte
	for _, e := range events {
		if e.op == opText || e.op == opBinary {
			b = append(b, e.data...)
		}
	}
	return string(b)
}

// lost says why a connection is over.
func lost(e event) error {
	switch {
	case e.err != nil:
		return e.err
	case len(e.data) > 0:
		return fmt.Errorf("it was closed with code %d: %s", e.code, printable(string(e.data)))
	}
	return fmt.Errorf("it was closed with code %d", e.code)
}

func errorFromBridge(text string) error {
	return fatal{"", strings.TrimRight("the bridge has ended the session: "+printable(text), " ")}
}

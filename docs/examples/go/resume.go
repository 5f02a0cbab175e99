package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/textproto"
	"strings"
	"time"
)

// outage is the time from the loss of a connection until something comes on another one.
type outage struct {
	deadline  time.Time
	notice    time.Time     // when the user is told
	told      bool          // the user was
	delay     time.Duration // before the next attempt
	why       error
	stale     int // 409 in a row
	forbidden int // refused credentials in a row
}

// over tells the user that the outage is over, if they know of it.
func (o *outage) over() {
	if o.told {
		say("the connection is back")
	}
}

// pause returns how long to wait before the next attempt.
func (o *outage) pause() time.Duration {
	d := o.delay
	o.delay = min(longestDelay, max(firstDelay, time.Duration(float64(d)*growth)))
	return jitter(d)
}

// detach forgets what is lost with a connection, and learns from its end. See "Offsets of a stream".
func (s *session) detach(a *attachment, lost connLost) error {
	s.queue, s.held = nil, nil
	if !s.ended {
		s.fin = -1
	}
	progress := s.ackedNumbers() > a.ackedBefore
	if err := s.learnSize(lost, progress, a.large > s.acked); err != nil {
		return err
	}
	now := time.Now()
	switch {
	case progress || len(s.kept) == 0:
		s.barren = 0
	case s.barren == 0:
		s.barren, s.since = 1, now
	default:
		s.barren++
	}
	if s.barren >= fruitlessLimit && now.Sub(s.since) > s.retain {
		return fmt.Errorf("connections open, but nothing gets through: %w", lost)
	}
	if s.outage == nil {
		s.outage = &outage{deadline: now.Add(s.retain), notice: now.Add(noticeAfter), delay: firstDelay / 2}
		for i := fruitless; i < s.barren; i++ {
			s.outage.pause()
		}
	}
	s.outage.why = lost
	return nil
}

// learnSize makes messages smaller where an edge refuses them. See "Size of messages".
func (s *session) learnSize(lost connLost, progress, largeInVain bool) error {
	tooBig := lost.op == opClose && lost.code == closeTooBig
	switch {
	case progress:
		s.wasted = 0
	case tooBig && s.limit == smallestMessage:
		return fatal{"", "something on the way refuses even small messages (Close 1009)"}
	case largeInVain && !errors.Is(lost.err, errSilent):
		s.wasted++
	}
	if tooBig || s.wasted == fruitlessLosses {
		s.limit, s.wasted = max(smallestMessage, min(smallerMessage, s.limit/2)), 0
	}
	return nil
}

// reconnect dials until the session is resumed. It returns what has been read from the new connection already. See
// "Resume".
func (s *session) reconnect() (*conn, []event, error) {
	o := s.outage
	least := time.Duration(0)
	for {
		if err := s.wait(max(o.pause(), least)); err != nil {
			return nil, nil, err
		}
		now := time.Now()
		if now.After(o.deadline) {
			return nil, nil, fmt.Errorf("the connection is lost and could not be made again: %w", o.why)
		}
		if !o.told && now.After(o.notice) {
			o.told = true
			say("the connection is lost (%v); trying again", o.why)
		}
		c, first, err := s.resume()
		if err == nil {
			return c, first, nil
		}
		if least, err = s.refused(err); err != nil {
			return nil, nil, err
		}
	}
}

// wait sleeps. After a suspension of the machine there is some time left at least.
func (s *session) wait(d time.Duration) error {
	before := time.Now()
	select {
	case <-time.After(d):
	case signal := <-s.signals:
		return errStopped{signal}
	}
	now := time.Now()
	if slept(before, now, d) && s.outage.deadline.Before(now.Add(grace)) {
		s.outage.deadline = now.Add(grace)
	}
	return nil
}

// refused decides what follows from a failed attempt: how long to wait at least, or an error that is final. See "What
// the client does with the answer".
func (s *session) refused(err error) (least time.Duration, final error) {
	o := s.outage
	o.why = err
	var end fatal
	var stopped errStopped
	var r refusal
	errors.As(err, &r)
	fromBridge := r.code != ""
	isStale, isForbidden := false, errors.As(err, new(errCredentials))
	switch {
	case errors.As(err, &end), errors.As(err, &stopped):
		return 0, err
	case fromBridge && (r.status == 400 || r.status == 401 || r.status == 403 || r.status == 410):
		return 0, fmt.Errorf("the session cannot be resumed: %w", err)
	case fromBridge && r.status == 409:
		isStale = true
		if epoch, ok := number(r.header.Get("Wstunnel-Epoch")); ok {
			s.epoch = max(s.epoch, epoch)
		}
		o.delay = 0
	case r.status == 401 || r.status == 403 || r.status == 407:
		isForbidden = true
	default:
		least = retryAfter(r.header)
	}
	o.stale = inARow(o.stale, isStale)
	o.forbidden = inARow(o.forbidden, isForbidden)
	if o.stale == staleLimit || o.forbidden == credentialsLimit {
		return 0, fmt.Errorf("the session cannot be resumed: %w", err)
	}
	return least, nil
}

func inARow(n int, again bool) int {
	if again {
		return n + 1
	}
	return 0
}

// retryAfter reads a Retry-After in seconds; a date is ignored.
func retryAfter(h textproto.MIMEHeader) time.Duration {
	n, _ := number(h.Get("Retry-After"))
	return time.Duration(min(n, int64(longestRetryAfter/time.Second))) * time.Second
}

// resume makes one attempt.
func (s *session) resume() (*conn, []event, error) {
	select {
	case err := <-s.sink.taken: // what the sink was writing when the connection was lost
		if err != nil {
			return nil, nil, errStopped{}
		}
		s.took()
	default:
	}
	s.epoch++
	received := s.ack()
	proof := hmac.New(sha256.New, s.key)
	fmt.Fprintf(proof, "%s %d %d", s.id, s.epoch, received)
	c, answer, err := s.dial(plainProtocol+", "+resumeProtocol,
		fmt.Sprintf("id=%s, epoch=%d, received=%d, proof=%x", s.id, s.epoch, received, proof.Sum(nil)))
	if err != nil {
		return nil, nil, err
	}
	m, ok := number(answer.Get("Wstunnel-Received"))
	var first []event
	if !ok || answer.Get("Sec-WebSocket-Protocol") != resumeProtocol {
		m, first, err = s.firstAck(c)
	}
	if err == nil {
		_, err = s.acknowledged(m)
	}
	if err != nil {
		c.abandon()
		return nil, nil, err
	}
	s.sent, s.finSent = s.acked, false
	s.next, s.told = s.delivered, received
	return c, first, nil
}

// firstAck finds out whether this is our bridge, behind an edge that drops the header.
func (s *session) firstAck(c *conn) (m int64, first []event, err error) {
	first, err = s.firstMessage(c, resumeFirstWait)
	if err != nil {
		return 0, nil, err
	}
	line := joined(first)
	if first[0].op == opText && strings.HasPrefix(line, ackWord) {
		if m, ok := number(strings.TrimPrefix(line, ackWord)); ok {
			return m, first, nil
		}
	}
	if first[0].op == opText && strings.HasPrefix(line, errorWord) {
		return 0, nil, errorFromBridge(strings.TrimPrefix(line, errorWord))
	}
	return 0, nil, fatal{"", "the session cannot be resumed: another server answers"}
}

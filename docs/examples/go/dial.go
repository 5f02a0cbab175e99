package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"time"
)

// refusal is an answer to the upgrade that is not 101.
type refusal struct {
	status  int
	header  textproto.MIMEHeader
	code    string // of Wstunnel-Error; empty if the answer is an edge's
	message string
}

func (r refusal) Error() string {
	switch {
	case r.code == "":
		return fmt.Sprintf("HTTP %d, which is not an answer of the bridge", r.status)
	case r.message == "":
		return fmt.Sprintf("the bridge refused: %s (HTTP %d)", printable(r.code), r.status)
	}
	return fmt.Sprintf("the bridge refused: %s (%s, HTTP %d)", printable(r.message), printable(r.code), r.status)
}

// errCredentials says that the token cannot be read.
type errCredentials struct{ error }

// dial opens a connection and upgrades it; resume is the value of Wstunnel-Resume, or empty. See "Transport and
// upgrade".
func (t *tunnel) dial(offer, resume string) (*conn, textproto.MIMEHeader, error) {
	type result struct {
		c      *conn
		answer textproto.MIMEHeader
		err    error
	}
	results := make(chan result, 1)
	go func() {
		c, answer, err := t.upgrade(offer, resume)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no connection within %v", connectTimeout)
		}
		results <- result{c, answer, err}
	}()
	select {
	case r := <-results:
		return r.c, r.answer, r.err
	case s := <-t.signals:
		return nil, nil, errStopped{s} // the program ends now
	}
}

func (t *tunnel) upgrade(offer, resume string) (*conn, textproto.MIMEHeader, error) {
	token := ""
	if t.tokenFile != "" {
		b, err := os.ReadFile(t.tokenFile)
		if err != nil {
			return nil, nil, errCredentials{fmt.Errorf("the token cannot be read: %w", err)}
		}
		token = strings.TrimSpace(string(b))
	}
	port := t.url.Port()
	if port == "" {
		port = map[string]string{"ws": "80", "wss": "443"}[t.url.Scheme]
	}
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(t.url.Hostname(), port)) // with TCP_NODELAY
	if err != nil {
		return nil, nil, err
	}
	deadline, _ := ctx.Deadline()
	_ = nc.SetDeadline(deadline)
	if t.url.Scheme == "wss" {
		nc = tls.Client(nc, &tls.Config{ServerName: t.url.Hostname(), NextProtos: []string{"http/1.1"}})
	}
	c := newConn(nc)
	answer, err := c.handshake(t.url.RequestURI(), t.url.Host, token, offer, resume)
	if err != nil {
		_ = nc.Close()
		return nil, nil, err
	}
	_ = nc.SetDeadline(time.Time{})
	c.start()
	return c, answer, nil
}

// handshake sends the request and checks the answer as RFC 6455, section 4.1 says. It returns the header of a 101.
func (c *conn) handshake(path, host, token, offer, resume string) (textproto.MIMEHeader, error) {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])
	var request bytes.Buffer
	fmt.Fprintf(&request, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", path, host)
	fmt.Fprintf(&request, "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n", key)
	fmt.Fprintf(&request, "Sec-WebSocket-Protocol: %s\r\n", offer)
	if token != "" {
		fmt.Fprintf(&request, "Authorization: Bearer %s\r\n", token)
	}
	if resume != "" {
		fmt.Fprintf(&request, "Wstunnel-Resume: %s\r\n", resume)
	}
	request.WriteString("\r\n")
	if _, err := c.Write(request.Bytes()); err != nil {
		return nil, err
	}
	status, h, err := c.readAnswer()
	if err != nil {
		return nil, err
	}
	if status != 101 {
		return nil, c.refusal(status, h)
	}
	hash := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	bad := ""
	switch {
	case !strings.EqualFold(h.Get("Upgrade"), "websocket"):
		bad = "Upgrade"
	case !hasToken(h.Values("Connection"), "upgrade"):
		bad = "Connection"
	case h.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(hash[:]):
		bad = "Sec-WebSocket-Accept"
	case len(h.Values("Sec-WebSocket-Extensions")) > 0:
		bad = "Sec-WebSocket-Extensions"
	case !wasOffered(h.Values("Sec-WebSocket-Protocol"), offer):
		bad = "Sec-WebSocket-Protocol"
	}
	if bad != "" {
		return nil, fmt.Errorf("the answer to the upgrade is not as RFC 6455 says: %s", bad)
	}
	return h, nil
}

// readAnswer reads the head of the response, and skips interim ones.
func (c *conn) readAnswer() (status int, h textproto.MIMEHeader, err error) {
	for i := 0; i <= interimLimit; i++ {
		head, err := c.readHead()
		if err != nil {
			return 0, nil, err
		}
		r := textproto.NewReader(bufio.NewReader(bytes.NewReader(head)))
		line, _ := r.ReadLine()
		words := strings.Fields(line)
		if len(words) < 2 || !strings.HasPrefix(words[0], "HTTP/1.") {
			return 0, nil, errors.New("the answer is not HTTP/1.1")
		}
		if status, err = strconv.Atoi(words[1]); err != nil {
			return 0, nil, errors.New("the answer has no status")
		}
		if h, err = r.ReadMIMEHeader(); err != nil {
			return 0, nil, err
		}
		if status == 101 || status >= 200 {
			return status, h, nil
		}
	}
	return 0, nil, errors.New("too many interim responses")
}

// readHead reads a response head, with the blank line that ends it.
func (c *conn) readHead() (head []byte, err error) {
	for {
		line, err := c.br.ReadSlice('\n')
		head = append(head, line...)
		switch {
		case len(head) > headLimit:
			return nil, errors.New("the head of the answer is too long")
		case err == io.EOF:
			return nil, errors.New("the connection ended during the upgrade")
		case err != nil:
			return nil, err
		case len(bytes.TrimRight(line, "\r\n")) == 0:
			return head, nil
		}
	}
}

func hasToken(fields []string, token string) bool {
	for _, f := range strings.Split(strings.Join(fields, ","), ",") {
		if strings.EqualFold(strings.TrimSpace(f), token) {
			return true
		}
	}
	return false
}

// wasOffered tells whether the answer selects no subprotocol, or one that the client has offered.
func wasOffered(selected []string, offer string) bool {
	if len(selected) == 0 {
		return true
	}
	for _, name := range strings.Split(offer, ", ") {
		if len(selected) == 1 && selected[0] == name {
			return true
		}
	}
	return false
}

// refusal reads what the body says. See "Answers to the upgrade".
func (c *conn) refusal(status int, h textproto.MIMEHeader) error {
	r := refusal{status: status, header: h, code: h.Get("Wstunnel-Error")}
	if length, ok := number(h.Get("Content-Length")); ok && r.code != "" {
		_ = c.SetReadDeadline(time.Now().Add(bodyWait))
		body, _ := io.ReadAll(io.LimitReader(c.br, min(length, bodyLimit)))
		var text struct{ Message string }
		if json.Unmarshal(body, &text) == nil {
			r.message = text.Message
		}
	}
	return r
}

// A client of wstunnel-py's bridge, written from docs/wire.md. It carries standard input and output, so it works as
// ssh's ProxyCommand:
//
//	ssh -o ProxyCommand='wstunnel-client wss://bridge.example/ssh' sandbox
//
// Comments such as: See "Resume", name the section of docs/wire.md that the code follows.
package main

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// The names and values are those of the page. See "Numbers".
const (
	headLimit           = 16 << 10
	connectTimeout      = 15 * time.Second
	interimLimit        = 100
	bodyLimit           = 64 << 10
	bodyWait            = 2 * time.Second
	largestMessage      = 256 << 10
	smallerMessage      = 32 << 10
	smallestMessage     = 4 << 10
	fruitlessLosses     = 2
	heldBack            = 131
	idleFrames          = 2000
	idleFramesPerSecond = 200
	firstWait           = 5 * time.Second
	falseStarts         = 3
	lineAcceptLimit     = 1024
	windowDefault       = 16 << 20
	windowLimit         = 64 << 20
	ackBytes            = 512 << 10
	ackDelay            = 100 * time.Millisecond
	pingInterval        = 20 * time.Second
	pingTimeout         = 60 * time.Second
	stallLimit          = 900 * time.Second
	closeLimit          = 60 * time.Second
	requestAfter        = 5 * time.Second
	deadAfter           = 8 * time.Second
	ackLimit            = 60 * time.Second
	probeLimit          = 2 * time.Second
	jump                = 5 * time.Second
	resumeFirstWait     = 5 * time.Second
	firstDelay          = 250 * time.Millisecond
	longestDelay        = 10 * time.Second
	growth              = 1.5
	noticeAfter         = 10 * time.Second
	longestRetryAfter   = 60 * time.Second
	grace               = 60 * time.Second
	staleLimit          = 8
	credentialsLimit    = 3
	fruitless           = 4
	fruitlessLimit      = 8
	reconnectFor        = 600 * time.Second
	farewellClient      = 2 * time.Second
	lingerClient        = 500 * time.Millisecond

	tick = 500 * time.Millisecond // how often the timers are checked
)

const (
	plainProtocol  = "binary"
	resumeProtocol = "v1.resume.wstunnel-py"
)

// tunnel is what all connections of one run have in common.
type tunnel struct {
	url       *url.URL
	tokenFile string
	source    <-chan chunk
	sink      *sink
	signals   <-chan os.Signal
}

// chunk is what one read of the source returned; err is io.EOF at its end.
type chunk struct {
	data []byte
	err  error
}

// readSource reads r in a goroutine. It reads the next chunk when the last one was taken.
func readSource(r io.Reader) <-chan chunk {
	chunks := make(chan chunk)
	go func() {
		for {
			b := make([]byte, 64<<10)
			n, err := r.Read(b)
			if n > 0 {
				chunks <- chunk{data: b[:n]}
			}
			if err != nil {
				chunks <- chunk{err: err}
				return
			}
		}
	}()
	return chunks
}

// sink writes to a file in a goroutine, one piece at a time, so that a slow reader holds up nothing else.
type sink struct {
	pieces chan []byte
	taken  chan error // one for each piece
	file   *os.File
}

func newSink(f *os.File) *sink {
	k := &sink{pieces: make(chan []byte), taken: make(chan error, 1), file: f}
	go func() {
		for p := range k.pieces {
			_, err := f.Write(p)
			k.taken <- err
		}
	}()
	return k
}

// end tells the reader of the sink that nothing more comes.
func (k *sink) end() {
	_ = syscall.Shutdown(int(k.file.Fd()), syscall.SHUT_WR) // a socket may have other descriptors
	_ = k.file.Close()
}

// errStopped says that the user wants an end: by a signal, or by closing standard output.
type errStopped struct{ signal os.Signal } // nil for standard output

func (e errStopped) Error() string {
	if e.signal == nil {
		return "standard output is closed"
	}
	return "ended by a signal: " + e.signal.String()
}

// gentle tells whether that is a regular end: ssh sends SIGHUP to its ProxyCommand when it is done.
func (e errStopped) gentle() bool { return e.signal == nil || e.signal == syscall.SIGHUP }

// printable replaces the control characters in a text from the peer. See "Security considerations".
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// jitter returns d times a random factor from 0.5 to 1.
func jitter(d time.Duration) time.Duration {
	var b [2]byte
	_, _ = rand.Read(b[:])
	return d/2 + d/2*time.Duration(binary.BigEndian.Uint16(b[:]))/65536
}

// Go has these since 1.21.
func min[T int | int64 | float64 | time.Duration](a, b T) T {
	if a < b {
		return a
	}
	return b
}

func max[T int | int64 | time.Duration](a, b T) T {
	if a > b {
		return a
	}
	return b
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "wstunnel-client: "+format+"\n", args...)
}

func run() error {
	plain := flag.Bool("plain", false, "use Wire 1: one connection, not resumed")
	tokenFile := flag.String("token-file", "", "`file` with the bearer token; read anew for each connection")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: wstunnel-client [-plain] [-token-file FILE] ws://HOST[:PORT][/PATH]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	u, err := url.Parse(flag.Arg(0))
	if err != nil || u.Host == "" || (u.Scheme != "ws" && u.Scheme != "wss") {
		return fmt.Errorf("%q is no URL that begins with ws:// or wss://", flag.Arg(0))
	}
	signal.Ignore(syscall.SIGPIPE) // else Go ends the program when standard output is closed
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	t := &tunnel{
		url:       u,
		tokenFile: *tokenFile,
		source:    readSource(os.Stdin),
		sink:      newSink(os.Stdout),
		signals:   signals,
	}
	err = t.open(!*plain)
	var stopped errStopped
	if errors.As(err, &stopped) && stopped.gentle() {
		return nil
	}
	return err
}

func main() {
	if err := run(); err != nil {
		say("%v", err)
		os.Exit(1)
	}
}

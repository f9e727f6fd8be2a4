package rpcjob

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/go-zeromq/zmq4"
	"github.com/go-zeromq/zmq4/security/null"
)

// splitEndpoint takes a ZMQ endpoint apart for package net.
func splitEndpoint(ep string) (network, addr string, err error) {
	scheme, addr, ok := strings.Cut(ep, "://")
	switch {
	case !ok:
		return "", "", fmt.Errorf("endpoint %q: it looks like tcp://127.0.0.1:28332", ep)
	case scheme == "ipc" && addr != "":
		return "unix", addr, nil
	case scheme != "tcp":
		return "", "", fmt.Errorf("endpoint %q: the transport is tcp or ipc", ep)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", "", fmt.Errorf("endpoint %q: %w", ep, err)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", "", fmt.Errorf("endpoint %q: %q is not a port", ep, port)
	}
	if host == "" || host == "*" {
		return "", "", fmt.Errorf("endpoint %q: names no host to connect to", ep)
	}
	return "tcp", addr, nil
}

// topic is what bitcoind publishes the hash of each new tip as.
const topic = "hashblock"

// zmqHandshake bounds the time from dialling until the publisher has greeted.
const zmqHandshake = 5 * time.Second

// subscribe connects to a publisher and calls notice with the hash of each new tip until the connection ends, which it
// always returns an error for. The socket type of zmq4 would not do: its handshake has no limit of time and cannot be
// interrupted, so that a port that accepts and stays silent would hold it forever.
func subscribe(
	ctx context.Context, ep string, silence time.Duration, connected func(), notice func(chainhash.Hash),
) (err error) {
	defer func() {
		// What zmq4 parses came from outside; a slip in it costs this connection, not the pool.
		if r := recover(); r != nil {
			err = fmt.Errorf("rpcjob: the publisher sends no ZMTP: %v", r)
		}
	}()
	network, addr, err := splitEndpoint(ep)
	if err != nil {
		return err
	}
	raw, err := (&net.Dialer{Timeout: zmqHandshake, KeepAlive: 15 * time.Second}).DialContext(ctx, network, addr)
	if err != nil {
		return err
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()

	if err := raw.SetDeadline(time.Now().Add(zmqHandshake)); err != nil {
		return err
	}
	conn, err := zmq4.Open(&frameGuard{Conn: raw}, null.Security(), zmq4.Sub, nil, false, nil)
	if err != nil {
		return err
	}
	if err := conn.SendMsg(zmq4.NewMsg(append([]byte{1}, topic...))); err != nil {
		return err
	}
	connected()
	for {
		if err := raw.SetDeadline(time.Now().Add(silence)); err != nil {
			return err
		}
		msg, err := conn.RecvMsg()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return errSilent
		}
		if err != nil {
			return err
		}
		if hash, ok := parseNotice(msg); ok {
			notice(hash)
		}
	}
}

// parseNotice reads a hashblock message: the topic, the hash in display order, and a sequence number of 4 bytes, which
// some publishers leave out. Frames beyond are ignored, and so is every other message.
func parseNotice(msg zmq4.Msg) (chainhash.Hash, bool) {
	if msg.Type == zmq4.CmdMsg || len(msg.Frames) < 2 || string(msg.Frames[0]) != topic ||
		len(msg.Frames[1]) != chainhash.HashSize {
		return chainhash.Hash{}, false
	}
	hash := chainhash.Hash(msg.Frames[1])
	slices.Reverse(hash[:])
	return hash, true
}

// errSilent ends a connection that was fine but brought nothing for long.
var errSilent = errors.New("rpcjob: the publisher is silent")

var errFrame = errors.New("rpcjob: the publisher announces a frame that is too large; is this a ZMQ port?")

const (
	greetingSize = 64      // of ZMTP 3, before the first frame
	maxFrame     = 1 << 20 // bytes; a notice has 80
	maxFrames    = 16      // of one message; a notice has 3
)

// A frameGuard reads along what a ZMTP 3 peer sends and ends the connection when a frame or message is larger than any
// notice could be. zmq4 allocates what the frame's header announces, up to the whole memory and beyond.
type frameGuard struct {
	net.Conn

	greeted int    // bytes of the greeting seen
	head    []byte // what is seen of a frame's header
	body    uint64 // bytes left of the frame's body
	frames  int    // frames of the unfinished message
}

// Read implements [io.Reader]. It never returns a byte beyond a header that it refuses.
func (g *frameGuard) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if n > 0 && !g.follow(p[:n]) {
		return 0, errFrame
	}
	return n, err
}

func (g *frameGuard) follow(p []byte) bool {
	for len(p) > 0 {
		switch {
		case g.greeted < greetingSize:
			n := min(greetingSize-g.greeted, len(p))
			g.greeted += n
			p = p[n:]
		case g.body > 0:
			n := min(g.body, uint64(len(p)))
			g.body -= n
			p = p[n:]
		default:
			g.head = append(g.head, p[0])
			p = p[1:]
			const more, long = 1, 2
			size := 2
			if g.head[0]&long != 0 {
				size = 9
			}
			if len(g.head) < size {
				continue
			}
			if size == 2 {
				g.body = uint64(g.head[1])
			} else {
				g.body = binary.BigEndian.Uint64(g.head[1:])
			}
			if g.frames++; g.frames > maxFrames || g.body > maxFrame {
				return false
			}
			if g.head[0]&more == 0 {
				g.frames = 0
			}
			g.head = g.head[:0]
		}
	}
	return true
}

package rpcjob_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"
)

// A benchNode serves one real template over and over, each time with another tip, held until mine receives.
type benchNode struct {
	*httptest.Server
	mine, waiting chan struct{}
	before, after []byte // around the digits of previousblockhash
	blocks        int
}

var prevHash = regexp.MustCompile(`("previousblockhash": ?")([0-9a-f]{64})`)

func newBenchNode(b *testing.B, reply []byte) *benchNode {
	b.Helper()
	at := prevHash.FindSubmatchIndex(reply)
	if at == nil {
		b.Fatal("no previousblockhash in the template")
	}
	n := &benchNode{
		mine: make(chan struct{}), waiting: make(chan struct{}, 1), before: reply[:at[4]], after: reply[at[5]:],
	}
	if !bytes.Contains(n.before, []byte(`"longpollid"`)) && !bytes.Contains(n.after, []byte(`"longpollid"`)) {
		n.before = append(bytes.Clone(reply[:at[2]]), append([]byte(`"longpollid":"x",`), reply[at[2]:at[4]]...)...)
	}
	n.Server = httptest.NewServer(n)
	b.Cleanup(func() { n.CloseClientConnections(); n.Close() })
	return n
}

func (n *benchNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if bytes.Contains(body, []byte("longpollid")) {
		n.waiting <- struct{}{}
		select {
		case <-n.mine:
		case <-r.Context().Done():
			return
		}
	}
	n.blocks++
	w.Header().Set("Content-Length", fmt.Sprint(len(n.before)+64+len(n.after)))
	w.Write(n.before)
	fmt.Fprintf(w, "%064x", n.blocks)
	w.Write(n.after)
}

type exampleNode struct{}

func (exampleNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := &fakeNode{height: 100, curTime: 1_700_000_000}
	io.WriteString(w, n.render())
}

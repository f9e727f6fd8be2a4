package handover

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestANilInheritedOpensSocketsAndWaitsForNobody(t *testing.T) {
	t.Setenv("LISTEN_PID", "1") // systemd's sockets are for another process
	t.Setenv("LISTEN_FDS", "3")
	in, err := Inherit()
	require.NoError(t, err)
	require.Nil(t, in)
	ln, err := in.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, in.Ready())
	state, err := in.Wait(t.Context())
	require.NoError(t, err)
	require.Empty(t, state)
	_, err = in.Listen("tcp", ln.Addr().String())
	require.Error(t, err, "the address is taken")
	require.NoError(t, ln.Close())
	_, err = in.Listen("tcp", "nowhere")
	require.ErrorContains(t, err, "handover: listen tcp")
	over, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = in.Wait(over)
	require.ErrorIs(t, err, context.Canceled)
}

func TestTheNewProcessSeesNoInvitationOfTheOldOne(t *testing.T) {
	env := withoutInvitations([]string{"A=1", "LISTEN_PID=7", "LISTEN_FDS=2", "LISTEN_FDNAMES=web", "LISTEN_PIDFDID=9",
		envName + "=x", "LISTEN=:3333", "B"})
	require.Equal(t, []string{"A=1", "LISTEN=:3333", "B"}, env)
}

func TestListensOn(t *testing.T) {
	for _, test := range []struct {
		have, network, addr string
		want                bool
	}{
		{"127.0.0.1:3333", "tcp", "127.0.0.1:3333", true},
		{"127.0.0.1:3333", "tcp4", "127.0.0.1:3333", true},
		{"127.0.0.1:3333", "tcp", "[::ffff:127.0.0.1]:3333", true},
		{"127.0.0.1:3333", "tcp", "127.0.0.1:3334", false},
		{"127.0.0.1:3333", "tcp", "127.0.0.2:3333", false},
		{"127.0.0.1:3333", "tcp", ":3333", false},
		{"127.0.0.1:3333", "tcp", "127.0.0.1:0", false},
		{"127.0.0.1:3333", "tcp", "stratum", false},
		{"127.0.0.1:3333", "unix", "127.0.0.1:3333", false},
		{"[::]:3333", "tcp", ":3333", true},
		{"[::]:3333", "tcp", "0.0.0.0:3333", true},
		{"0.0.0.0:3333", "tcp", "[::]:3333", true},
		{"[::]:3333", "tcp", "127.0.0.1:3333", false},
		{"[::1]:3333", "tcp", "[::1]:3333", true},
		{"[::1]:3333", "tcp4", "[::1]:3333", false},
		{"[fe80::1%lo]:3333", "tcp", "[fe80::1%eth0]:3333", false},
	} {
		have, err := net.ResolveTCPAddr("tcp", test.have)
		require.NoError(t, err)
		require.Equal(t, test.want, listensOn(have, test.network, test.addr), "%+v", test)
	}
	sock := &net.UnixAddr{Name: "/run/pool.sock", Net: "unix"}
	require.True(t, listensOn(sock, "unix", "/run/pool.sock"))
	require.False(t, listensOn(sock, "unix", "/run/other.sock"))
	require.False(t, listensOn(sock, "unixpacket", "/run/pool.sock"))
}

func testSocket(t *testing.T) *listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	return &listener{socket: ln.(socket)}
}

// Two listeners on port 0 of one host are told apart by what they were asked for, whatever the order.
func TestListenersAreClaimedOnceAndTheRestClosed(t *testing.T) {
	asked, named, plain, left := testSocket(t), testSocket(t), testSocket(t), testSocket(t)
	asked.requested = "tcp 127.0.0.1:0"
	named.label = "web"
	in := &Inherited{sockets: []*listener{left, plain, named, asked}}
	for _, test := range []struct {
		addr string
		want *listener
	}{
		{"127.0.0.1:0", asked}, {"web", named}, {plain.Addr().String(), plain},
	} {
		ln, err := in.Listen("tcp", test.addr)
		require.NoError(t, err)
		require.Equal(t, test.want.Addr(), ln.Addr())
		require.Equal(t, "tcp "+test.addr, requested(ln), "the next process must find it by the same words")
	}
	_, err := in.Listen("tcp", plain.Addr().String())
	require.Error(t, err, "it was claimed already, and is in use")
	fresh, err := in.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer fresh.Close()
	require.NotEqual(t, asked.Addr(), fresh.Addr())

	_, err = net.Dial("tcp", left.Addr().String())
	require.NoError(t, err, "it stays open until all have been asked for")
	require.NoError(t, in.Ready())
	_, err = net.Dial("tcp", left.Addr().String())
	require.Error(t, err, "nobody will accept from it")
	_, err = left.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoError(t, plain.SetDeadline(time.Unix(1, 0)), "what was claimed stays open")
	require.ErrorContains(t, in.Ready(), "before")
	_, err = in.Wait(t.Context())
	require.NoError(t, err, "systemd hands over nothing to wait for")
}

func TestStateIsWholeOrNothing(t *testing.T) {
	for _, size := range []int{0, 1, maxPiece - 1, maxPiece, maxPiece + 1, 5*maxPiece + 7} {
		state := bytes.Repeat([]byte("poolkit "), size/8+1)[:size]
		var wire bytes.Buffer
		require.NoError(t, writeState(&wire, bytes.NewReader(state), int64(size)))
		got, err := readState(bytes.NewReader(wire.Bytes()), int64(size))
		require.NoError(t, err)
		require.True(t, bytes.Equal(state, got))
		got, err = readState(iotest.HalfReader(bytes.NewReader(wire.Bytes())), int64(size))
		require.NoError(t, err)
		require.True(t, bytes.Equal(state, got))
		if size > 0 {
			require.ErrorContains(t, writeState(io.Discard, bytes.NewReader(state), int64(size-1)), "more than")
			_, err = readState(bytes.NewReader(wire.Bytes()), int64(size-1))
			require.ErrorContains(t, err, "more than")
		}
	}

	var wire bytes.Buffer
	require.NoError(t, writeState(&wire, bytes.NewReader([]byte("the sessions of everybody")), 100))
	for n := range wire.Len() {
		_, err := readState(bytes.NewReader(wire.Bytes()[:n]), 100)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut off after %d bytes", n)
	}
	for i := range wire.Len() {
		b := bytes.Clone(wire.Bytes())
		b[i] ^= 0x10
		got, err := readState(bytes.NewReader(b), 100)
		require.Error(t, err, "byte %d changed", i)
		require.Nil(t, got)
	}
	_, err := readState(bytes.NewReader([]byte{1, 0, 1, 0}), 1<<30)
	require.ErrorContains(t, err, "65537")

	broken := errors.New("broken")
	require.ErrorIs(t, writeState(io.Discard, iotest.ErrReader(broken), 100), broken)
	require.NoError(t, writeState(io.Discard, iotest.DataErrReader(bytes.NewReader([]byte("x"))), 1))
}

func FuzzReadState(f *testing.F) {
	for _, s := range []string{"", "x", "the sessions of everybody"} {
		var wire bytes.Buffer
		if err := writeState(&wire, bytes.NewReader([]byte(s)), 1000); err != nil {
			f.Fatal(err)
		}
		f.Add(wire.Bytes())
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readState(bytes.NewReader(b), 1000)
		if err != nil {
			require.Nil(t, got)
			return
		}
		require.LessOrEqual(t, len(got), 1000)
		var wire bytes.Buffer
		require.NoError(t, writeState(&wire, bytes.NewReader(got), 1000))
		again, err := readState(&wire, 1000)
		require.NoError(t, err)
		require.True(t, bytes.Equal(got, again))
	})
}

func BenchmarkState(b *testing.B) {
	state := make([]byte, 16<<20)
	b.SetBytes(int64(len(state)))
	b.ReportAllocs()
	for b.Loop() {
		r, w := io.Pipe()
		go func() { w.CloseWithError(writeState(w, bytes.NewReader(state), 1<<30)) }()
		if _, err := readState(r, 1<<30); err != nil {
			b.Fatal(err)
		}
	}
}

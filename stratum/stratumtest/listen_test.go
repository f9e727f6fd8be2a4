package stratumtest

import (
	"bufio"
	"context"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Listen()
		accepted := make(chan net.Conn)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					close(accepted)
					return
				}
				accepted <- c
			}
		}()
		var seen []string
		for _, dial := range []func() (net.Conn, error){
			func() (net.Conn, error) { return l.Dial(t.Context()) },
			func() (net.Conn, error) { return l.Dial(t.Context()) },
			func() (net.Conn, error) {
				return l.DialFrom(t.Context(), net.TCPAddrFromAddrPort(netip.MustParseAddrPort("[2001:db8::1]:7")))
			},
		} {
			client, err := dial()
			require.NoError(t, err)
			server := <-accepted
			require.Equal(t, server.RemoteAddr(), client.LocalAddr())
			require.Equal(t, server.LocalAddr(), client.RemoteAddr())
			require.Equal(t, l.Addr(), server.LocalAddr())
			seen = append(seen, server.RemoteAddr().String())

			go client.Write([]byte("hello\n"))
			line, err := bufio.NewReader(server).ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "hello\n", line)
			client.Close()
			_, err = server.Read(make([]byte, 1))
			require.Error(t, err)
		}
		require.Equal(t, []string{"127.0.0.1:49152", "127.0.0.1:49153", "[2001:db8::1]:7"}, seen)

		require.NoError(t, l.Close())
		require.NoError(t, l.Close())
		_, open := <-accepted
		require.False(t, open)
		_, err := l.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
		_, err = l.Dial(t.Context())
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

func TestDialGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Listen()
		ctx, cancel := context.WithCancel(t.Context())
		dialed := make(chan error)
		go func() {
			_, err := l.Dial(ctx)
			dialed <- err
		}()
		synctest.Wait() // nobody accepts
		cancel()
		require.ErrorIs(t, <-dialed, context.Canceled)

		go func() {
			_, err := l.Dial(t.Context())
			dialed <- err
		}()
		synctest.Wait()
		l.Close()
		require.ErrorIs(t, <-dialed, net.ErrClosed)
	})
}

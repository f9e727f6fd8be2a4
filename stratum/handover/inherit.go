package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrOrphaned is returned by Wait when the old process died before it had handed over everything. Nobody else serves
// the sockets now and nobody holds the data, so a program goes on without a state: miners start anew instead of
// resuming, which beats a pool that is down.
var ErrOrphaned = errors.New("the old process died before it had handed over")

// Inherited is what a process was passed by the one before it, or by systemd. A nil *Inherited has been passed nothing
// and may be used all the same. Its methods may be called at any time, by anyone.
type Inherited struct {
	state    *os.File // nil when the sockets come from systemd
	report   *os.File
	maxState int64

	mu      sync.Mutex
	sockets []*listener // not claimed yet
	ready   bool
	waited  bool
}

// A socket is what listeners of package net have in common.
type socket interface {
	net.Listener
	syscall.Conn
	File() (*os.File, error)
	SetDeadline(time.Time) error
}

// A listener remembers what it was asked for by, so that the next process finds it by the same configuration: port 0
// says nothing of the port it became, nor a name of the address.
type listener struct {
	socket
	requested string // "tcp :3333", "" when unknown
	label     string // systemd's name
}

// Inherit takes what this process was passed; it returns nil when that is nothing. It removes the variables that say so
// from the environment, and keeps the sockets from programs that this one starts, so call it once, before any is
// started.
func Inherit() (*Inherited, error) {
	in, err := inherit()
	if err != nil {
		in.closeAll()
		return nil, fmt.Errorf("handover: inherit: %w", err)
	}
	return in, nil
}

func inherit() (*Inherited, error) {
	if text, ok := os.LookupEnv(envName); ok {
		os.Unsetenv(envName)
		return accept(text)
	}
	// sd_listen_fds(3). What is meant for another process, as it is when a shell stands in between, is not touched.
	pid, fds := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	if pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	labels := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
		os.Unsetenv(name)
	}
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 || n > 4096 {
		return nil, fmt.Errorf("LISTEN_FDS is %q", fds)
	}
	in := &Inherited{}
	for i := range n {
		label := ""
		if i < len(labels) {
			label = labels[i]
		}
		if err := in.adopt(uintptr(firstDescriptor+i), "", label); err != nil {
			return in, err
		}
	}
	return in, nil
}

// accept takes the invitation of an old process.
func accept(text string) (*Inherited, error) {
	var inv invitation
	if err := json.Unmarshal([]byte(text), &inv); err != nil {
		return nil, fmt.Errorf("%s is %q: %w", envName, text, err)
	}
	if inv.Version != version {
		return nil, fmt.Errorf("the old process hands over by version %d, this one takes version %d", inv.Version, version)
	}
	in := &Inherited{maxState: inv.MaxState}
	var err error
	if in.state, err = openPipe(firstDescriptor); err != nil {
		return in, err
	}
	if in.report, err = openPipe(firstDescriptor + 1); err != nil {
		return in, err
	}
	for i, name := range inv.Listeners {
		if err := in.adopt(uintptr(firstDescriptor+pipes+i), name, ""); err != nil {
			return in, err
		}
	}
	return in, nil
}

// adopt adds the listening socket of a descriptor.
func (in *Inherited) adopt(fd uintptr, requested, label string) error {
	f, err := openInherited(fd)
	if err != nil {
		return fmt.Errorf("descriptor %d (%s%s): %w", fd, requested, label, err)
	}
	defer f.Close() // FileListener makes a copy
	ln, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("descriptor %d (%s%s) is no listening socket: %w", fd, requested, label, err)
	}
	s, ok := ln.(socket)
	if !ok {
		ln.Close()
		return fmt.Errorf("descriptor %d (%s%s) listens for %s, want TCP or Unix", fd, requested, label, ln.Addr().Network())
	}
	in.sockets = append(in.sockets, &listener{socket: s, requested: requested, label: label})
	return nil
}

func (in *Inherited) closeAll() {
	if in == nil {
		return
	}
	for _, s := range in.sockets {
		s.Close()
	}
	in.sockets = nil
	for _, f := range []*os.File{in.state, in.report} {
		if f != nil {
			f.Close()
		}
	}
}

// Listen returns the inherited listener for an address, or opens one as net.Listen does. An inherited one serves when
// the process before asked for it by the same words, when systemd named it so, or when it listens on that address,
// where all ways to write every address of the machine (":3333", "0.0.0.0:3333", "[::]:3333") are the same. Each is
// returned once. What it returns can be passed to Start again.
func (in *Inherited) Listen(network, addr string) (net.Listener, error) {
	name := network + " " + addr
	if l := in.claim(network, addr); l != nil {
		return &listener{socket: l.socket, requested: name}, nil
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		return nil, fmt.Errorf("handover: %w", err)
	}
	s, ok := ln.(socket)
	if !ok {
		return ln, nil
	}
	return &listener{socket: s, requested: name}, nil
}

func (in *Inherited) claim(network, addr string) *listener {
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, matches := range []func(*listener) bool{
		func(l *listener) bool { return l.requested == network+" "+addr },
		func(l *listener) bool { return l.label != "" && l.label == addr },
		func(l *listener) bool { return listensOn(l.Addr(), network, addr) },
	} {
		for i, l := range in.sockets {
			if matches(l) {
				in.sockets = append(in.sockets[:i], in.sockets[i+1:]...)
				return l
			}
		}
	}
	return nil
}

// listensOn reports whether a listener with address have is one for addr. Port 0 names no listener: which one was
// meant cannot be told.
func listensOn(have net.Addr, network, addr string) bool {
	switch have := have.(type) {
	case *net.TCPAddr:
		if !strings.HasPrefix(network, "tcp") {
			return false
		}
		want, err := net.ResolveTCPAddr(network, addr)
		if err != nil || want.Port == 0 || want.Port != have.Port {
			return false
		}
		return plain(want) == plain(have)
	case *net.UnixAddr:
		return network == have.Net && addr == have.Name
	}
	return false
}

// plain returns an address in the one form that it has here; the zero Addr is every address of the machine.
func plain(a *net.TCPAddr) netip.Addr {
	ip := a.AddrPort().Addr().Unmap()
	if !ip.IsValid() || ip.IsUnspecified() {
		return netip.Addr{}
	}
	return ip
}

// Ready tells the old process that this one can take over: it has its listeners, and knows of nothing that would stop
// it. Inherited sockets that nobody asked for are closed, for they are no longer in the configuration.
func (in *Inherited) Ready() error {
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ready {
		return errors.New("handover: ready was said before")
	}
	in.ready = true
	for _, s := range in.sockets {
		s.Close()
	}
	in.sockets = nil
	if in.report == nil {
		return nil
	}
	// An old process that has died meanwhile does not hear it, and Wait will say so.
	if _, err := in.report.Write([]byte{saidReady}); err != nil && !isBrokenPipe(err) {
		return fmt.Errorf("handover: say ready: %w", err)
	}
	return nil
}

// Wait waits until the old process has let go of everything and returns its state, whole and verified. From then on
// this process may open the data and accept connections. It returns at once, with nothing, when there is no old
// process; ErrOrphaned when that died; and ctx.Err() when ctx ends. After another error the old process goes on, and this
// one must exit.
func (in *Inherited) Wait(ctx context.Context) (state []byte, err error) {
	if in == nil || in.state == nil {
		return nil, ctx.Err()
	}
	in.mu.Lock()
	if !in.ready || in.waited {
		defer in.mu.Unlock()
		return nil, errors.New("handover: wait comes once, after ready")
	}
	in.waited = true
	in.mu.Unlock()
	defer in.state.Close()
	defer in.report.Close()
	stop := context.AfterFunc(ctx, func() { _ = in.state.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	state, err = readState(in.state, in.maxState)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("handover: %w", ErrOrphaned)
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fmt.Errorf("handover: take the state: %w", err)
	}
	// An old process that dies at this point has handed over all the same.
	if _, err := in.report.Write([]byte{saidTaken}); err != nil && !isBrokenPipe(err) {
		return nil, fmt.Errorf("handover: confirm the state: %w", err)
	}
	return state, nil
}

package stratum_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/admissiontest"
	"github.com/stretchr/testify/require"
)

// accounts is a user list and the form to sign up for it.
type accounts struct {
	mu     sync.Mutex
	ids    map[string]int32
	calls  []share.Worker
	hold   chan struct{} // Register waits for it, if not nil
	deaf   bool          // Register does not look at its context
	lag    time.Duration // until Authorize knows who was registered; negative for ever
	err    error         // of Register
	down   error         // of Authorize
	secret string        // password of everybody, "" takes any
}

func (a *accounts) Register(ctx context.Context, w share.Worker) error {
	a.mu.Lock()
	a.calls = append(a.calls, w)
	hold, deaf, lag, err := a.hold, a.deaf, a.lag, a.err
	a.mu.Unlock()
	if deaf {
		<-hold
	} else if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if ctx.Err() != nil || err != nil {
		return errors.Join(err, ctx.Err())
	}
	if w.User == "banned" {
		return fmt.Errorf("%w: banned", stratum.ErrUnknownUser)
	}
	open := func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.ids == nil {
			a.ids = make(map[string]int32)
		}
		if a.ids[w.User] == 0 {
			a.ids[w.User] = int32(len(a.ids) + 1)
		}
	}
	switch {
	case lag == 0:
		open()
	case lag > 0:
		time.AfterFunc(lag, open)
	}
	return nil
}

func (a *accounts) Authorize(_ context.Context, w share.Worker, password string) (int32, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down != nil {
		return 0, a.down
	}
	if id := a.ids[w.User]; id != 0 && (a.secret == "" || password == a.secret) {
		return id, nil
	}
	return 0, stratum.ErrUnknownUser
}

func (a *accounts) set(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

func (a *accounts) registered() []share.Worker {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls
}

// The backend that the suite is shown with.
func TestRegistrarSuite(t *testing.T) {
	admissiontest.TestRegistrar(t, func(t *testing.T) admissiontest.RegistrarBackend {
		a := new(accounts)
		return admissiontest.RegistrarBackend{
			Registrar: stratum.RegistrarFunc(a.Register),
			Accounts: func(_ *testing.T, user string) int {
				a.mu.Lock()
				defer a.mu.Unlock()
				if a.ids[user] != 0 {
					return 1
				}
				return 0
			},
			Refused: "banned",
			Stall:   func() { a.hold = make(chan struct{}) },
		}
	})
}

func TestAutoRegistrarKeepsThePromisesOfAnAuthorizer(t *testing.T) {
	var a *accounts
	open := func(*testing.T) stratum.Authorizer {
		a = new(accounts)
		return stratum.AutoRegister(a, a, nil)
	}
	reopen := func(*testing.T) stratum.Authorizer { return stratum.AutoRegister(a, a, nil) }
	admissiontest.TestAuthorizer(t, open, reopen, "banned")
}

type answer struct {
	id   int32
	err  error
	took time.Duration
}

// login authorizes on a goroutine, as a session does, within a bubble.
func login(ctx context.Context, a stratum.Authorizer, user, machine, password string) <-chan answer {
	c := make(chan answer, 1)
	go func() {
		start := time.Now()
		id, err := a.Authorize(ctx, share.Worker{User: user, Name: machine}, password)
		c <- answer{id, err, time.Since(start)}
	}()
	return c
}

func TestOneRegistrationAUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := &accounts{hold: make(chan struct{}), lag: 2500 * time.Millisecond}
		a := stratum.AutoRegister(list, list, nil)
		var all []<-chan answer
		for n := range 200 {
			all = append(all, login(t.Context(), a, "alice", fmt.Sprint(n), ""))
		}
		synctest.Wait()
		require.Len(t, list.registered(), 1)
		require.Equal(t, 1, a.Pending())
		close(list.hold)
		for _, c := range all {
			got := <-c
			require.NoError(t, got.err)
			require.Equal(t, int32(1), got.id)
			require.Equal(t, 3*time.Second, got.took, "it asks again every second")
		}
		require.Len(t, list.registered(), 1)
		require.Zero(t, a.Pending())
		got := <-login(t.Context(), a, "alice", "late", "")
		require.Equal(t, answer{id: 1}, got, "who is known is not registered")
		require.Len(t, list.registered(), 1)
	})
}

func TestRegistrationsHaveADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Registered, but the list never gets to know.
		list := &accounts{lag: -1}
		a := stratum.AutoRegister(list, list, nil)
		first := login(t.Context(), a, "alice", "first", "")
		time.Sleep(20 * time.Second)
		second := login(t.Context(), a, "alice", "second", "")
		got := <-first
		require.ErrorIs(t, got.err, stratum.ErrUnknownUser)
		require.Equal(t, time.Minute, got.took)
		got = <-second
		require.ErrorIs(t, got.err, stratum.ErrUnknownUser)
		require.Equal(t, 40*time.Second, got.took, "who joins shares the deadline")
		require.Zero(t, a.Pending())
		require.Len(t, list.registered(), 1)

		// The registrar does not answer.
		list.set(func() { list.hold = make(chan struct{}) })
		a = stratum.AutoRegister(list, list, &stratum.AutoRegisterOptions{Deadline: 5 * time.Second})
		got = <-login(t.Context(), a, "alice", "rig", "")
		require.ErrorIs(t, got.err, context.DeadlineExceeded)
		require.NotErrorIs(t, got.err, stratum.ErrUnknownUser, "the miner may come back")
		require.Equal(t, 5*time.Second, got.took)
		synctest.Wait()
		require.Zero(t, a.Pending())
	})
}

func TestRegistrationsInProgressAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := &accounts{hold: make(chan struct{})}
		a := stratum.AutoRegister(list, list, nil)
		var all []<-chan answer
		for n := range 50 {
			all = append(all, login(t.Context(), a, fmt.Sprint("user", n), "rig", ""))
		}
		synctest.Wait()
		got := <-login(t.Context(), a, "onemore", "rig", "")
		require.ErrorIs(t, got.err, stratum.ErrUnknownUser)
		require.Zero(t, got.took)
		joined := login(t.Context(), a, "user7", "another", "")
		synctest.Wait()
		require.Len(t, list.registered(), 50)
		close(list.hold)
		for _, c := range append(all, joined) {
			require.NoError(t, (<-c).err)
		}
		require.NoError(t, (<-login(t.Context(), a, "onemore", "rig", "")).err, "there is room again")
	})
}

func TestARegistrationEndsWhenNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := &accounts{hold: make(chan struct{})}
		a := stratum.AutoRegister(list, list, nil)
		ctx1, leave1 := context.WithCancel(t.Context())
		ctx2, leave2 := context.WithCancel(t.Context())
		first, second := login(ctx1, a, "alice", "1", ""), login(ctx2, a, "alice", "2", "")
		synctest.Wait()
		leave1()
		require.ErrorIs(t, (<-first).err, context.Canceled)
		synctest.Wait()
		require.Equal(t, 1, a.Pending(), "the other still waits, whoever came first")
		leave2()
		got := <-second
		require.ErrorIs(t, got.err, context.Canceled)
		require.NotErrorIs(t, got.err, stratum.ErrUnknownUser)
		synctest.Wait()
		require.Zero(t, a.Pending())

		// Somebody who leaves while the list lags frees the place, too.
		list.set(func() { list.hold, list.lag = nil, -1 })
		ctx3, leave3 := context.WithTimeout(t.Context(), 3*time.Second)
		defer leave3()
		got = <-login(ctx3, a, "alice", "3", "")
		require.ErrorIs(t, got.err, context.DeadlineExceeded)
		require.Zero(t, a.Pending())
	})
}

// A registrar that breaks its promise and hangs is not called again for the same user, or calls would pile up.
func TestARegistrarThatHangsKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := &accounts{hold: make(chan struct{}), deaf: true}
		a := stratum.AutoRegister(list, list, &stratum.AutoRegisterOptions{MaxPending: 1})
		require.ErrorIs(t, (<-login(t.Context(), a, "alice", "rig", "")).err, context.DeadlineExceeded)
		require.Equal(t, 1, a.Pending())
		got := <-login(t.Context(), a, "alice", "rig", "")
		require.ErrorContains(t, got.err, "given up")
		require.NotErrorIs(t, got.err, stratum.ErrUnknownUser)
		require.ErrorIs(t, (<-login(t.Context(), a, "bob", "rig", "")).err, stratum.ErrUnknownUser)
		require.Len(t, list.registered(), 1)
		close(list.hold)
		synctest.Wait()
		require.Zero(t, a.Pending())
		require.NoError(t, (<-login(t.Context(), a, "alice", "rig", "")).err)
	})
}

func TestWhatARegistrarSaysIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := new(accounts)
		a := stratum.AutoRegister(list, list, nil)
		require.ErrorIs(t, (<-login(t.Context(), a, "banned", "rig", "")).err, stratum.ErrUnknownUser)

		full := errors.New("no more accounts today")
		list.set(func() { list.err = full })
		got := <-login(t.Context(), a, "alice", "rig", "")
		require.ErrorIs(t, got.err, full)
		require.NotErrorIs(t, got.err, stratum.ErrUnknownUser)

		// What the authorizer says besides ErrUnknownUser starts nothing.
		down := errors.New("down")
		list.set(func() { list.err, list.down, list.calls = nil, down, nil })
		require.ErrorIs(t, (<-login(t.Context(), a, "alice", "rig", "")).err, down)
		require.Empty(t, list.registered())

		// And ends the wait.
		list.set(func() { list.down, list.lag = nil, -1 })
		c := login(t.Context(), a, "alice", "rig", "")
		synctest.Wait()
		list.set(func() { list.down = down })
		got = <-c
		require.ErrorIs(t, got.err, down)
		require.Equal(t, time.Second, got.took)
		require.Zero(t, a.Pending())
	})
}

// Each machine is let in on its own password, whoever came first.
func TestAutoRegisterAsksWithEveryPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := &accounts{hold: make(chan struct{}), secret: "right"}
		a := stratum.AutoRegister(list, list, nil)
		wrong := login(t.Context(), a, "alice", "1", "wrong")
		synctest.Wait()
		right := login(t.Context(), a, "alice", "2", "right")
		synctest.Wait()
		close(list.hold)
		require.NoError(t, (<-right).err)
		require.ErrorIs(t, (<-wrong).err, stratum.ErrUnknownUser)
	})
}

func TestWhatIsNoNameIsNotRegistered(t *testing.T) {
	list := new(accounts)
	a := stratum.AutoRegister(list, list, nil)
	for _, user := range []string{"", "a b", "a\x00", "a/../é"} {
		_, err := a.Authorize(t.Context(), share.Worker{User: user, Name: "rig"}, "")
		require.ErrorIs(t, err, stratum.ErrUnknownUser)
	}
	require.Empty(t, list.registered())
}

// A pool that opens an account for whoever mines.
func ExampleAutoRegister() {
	list := new(accounts) // in a pool, httpauth.Users and what adds to its list
	auth := stratum.AutoRegister(list, stratum.RegistrarFunc(func(ctx context.Context, w share.Worker) error {
		fmt.Println("an account for", w.User, "who mines with", w.Name)
		return list.Register(ctx, w)
	}), nil)
	fmt.Println(auth.Authorize(context.Background(), share.Worker{User: "alice", Name: "rig01"}, "x"))
	fmt.Println(auth.Authorize(context.Background(), share.Worker{User: "alice", Name: "rig02"}, "x"))
	// Output:
	// an account for alice who mines with rig01
	// 1 <nil>
	// 1 <nil>
}

//go:build unix

package handover_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/poolkit/poolkit/stratum/handover"
)

// A process hands its port and what it knows to the next one. Here that is this test's program, started once more.
func Example() {
	ctx := context.Background()
	in, err := handover.Inherit() // nil: this is the first process
	if err != nil {
		fmt.Println(err)
		return
	}
	ln, err := in.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	addr := ln.Addr().String()

	child, err := handover.Start(ctx, []net.Listener{ln}, &handover.Options{
		Env: append(os.Environ(), "HANDOVER_ROLE=example"),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := child.Ready(ctx); err != nil {
		fmt.Println(err) // and this process goes on as before
		return
	}
	ln.Close() // no longer accept here; whoever connects now waits for the new process
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := child.Give(ctx, strings.NewReader("12 sessions")); err != nil {
		fmt.Println(err)
		return
	}
	reply, _ := io.ReadAll(conn)
	fmt.Print(string(reply))
	// Output: the new process has 12 sessions
}

// runExample is the new process.
func runExample() {
	in, err := handover.Inherit()
	if err != nil {
		panic(err)
	}
	ln, err := in.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	if err := in.Ready(); err != nil {
		panic(err)
	}
	state, err := in.Wait(context.Background())
	if err != nil {
		panic(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(conn, "the new process has %s\n", state)
	conn.Close()
}

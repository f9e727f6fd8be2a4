// Package handover replaces a running program by its next version without refusing a connection. The listening sockets
// pass from one process to the other and are never closed in between: who connects meanwhile waits in the kernel's
// queue. What the old process knows, such as the sessions that miners may resume, goes along as bytes of the program's
// own making.
//
//	old process                            new process
//	───────────                            ───────────
//	Start, with its listeners ──────────▶  Inherit
//	  serves on                            Listen, for each address of its configuration
//	Child.Ready  ◀───────────────────────  Ready: the configuration is good
//	  stops accepting, drains,             Wait
//	  closes its data folders
//	Child.Give the state ───────────────▶
//	             ◀───────────────────────  Wait returns the state
//	  exits                                opens the data folders, accepts
//
// Up to the end of Give the old process can change its mind, and does so by itself when the new one fails, hangs or
// does not get ready in time: the new one is killed and the old one goes on. When the old one dies the new one is told
// by [ErrOrphaned] and goes on alone. An old process that must be able to go on after it has stopped accepting stops by
// a deadline on its listener, SetDeadline, and not by closing it.
//
// # The new process
//
// It is written the same whether it is the first or not: a nil [Inherited] opens sockets and waits for nobody.
//
//	in, err := handover.Inherit()
//	if err != nil {
//		return err
//	}
//	ln, err := in.Listen("tcp", cfg.Listen)
//	if err != nil {
//		return err
//	}
//	if err := in.Ready(); err != nil { // everything that can be wrong with the configuration has been looked at
//		return err
//	}
//	state, err := in.Wait(ctx)
//	if err != nil && !errors.Is(err, handover.ErrOrphaned) {
//		return err
//	}
//	data, err := openData(cfg.Dir) // not before Wait: until then the old process holds its locks and writes to it
//
// # Data folders
//
// One process at a time may have a data folder open, which its lock makes sure of. So the old process closes its
// folders before it calls Give, and the new one opens them after Wait. A new process that opened them earlier would
// find them locked, fail, and be given up. After ErrOrphaned the locks are free, for they end with the process that
// held them.
//
// # Under systemd
//
// [Inherit] also takes sockets that systemd passes (LISTEN_FDS), so they stay open across a restart too. A socket is
// claimed by its address or by its name (FileDescriptorName=): in.Listen("tcp", "stratum"). With NotifyAccess=main in
// the unit, which Type=notify implies, Give tells systemd the new main process; without that systemd ends the new
// process with the old one. In a container whose first process is the program itself, its end is the container's:
// there only a restart with sockets from outside helps.
//
// Handing over works on Unix systems. Elsewhere Start fails with errors.ErrUnsupported, and Inherit finds nothing.
package handover

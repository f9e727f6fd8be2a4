package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/sharelog"
	"github.com/poolkit/poolkit/stats"
	"github.com/poolkit/poolkit/stats/pebblestats"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/handover"
	"github.com/poolkit/poolkit/stratum/httpauth"
	"golang.org/x/sync/errgroup"
)

// A pool is one value of each room, joined by the interfaces of job and share:
//
//	backend ─▶ job.Maker ─▶ Hub ─▶ stratum.Server ⇄ miners
//	                                   │  │
//	      every share ─▶ sharelog.Writer  └─ solved ─▶ block.Maker ─▶ backend
//	                          │
//	             Dir ─▶ Tail ─▶ stats.Aggregator ─▶ Flusher ─▶ pebble
//
// The statistics are computed from the log, and the place they have got to is stored with them: whatever the process
// dies of, each share in the log counts once.
type pool struct {
	cfg     *config
	log     *slog.Logger
	backend *backend

	maker   *job.Maker
	server  *stratum.Server
	blocks  *block.Maker
	found   *block.File
	watcher *block.Watcher
	writer  *sharelog.Writer
	tail    *sharelog.Tail
	totals  *stats.Aggregator
	flusher *stats.Flusher

	ports       []*stratum.Port
	web         net.Listener
	pages       http.Handler
	sockets     []net.Listener       // of ports and web, for the next process
	certificate *stratum.Certificate // nil without TLS
	eventFile   *appendFile          // nil without events
	events      *stratum.EventWriter // nil without events
	userList    *httpauth.Users      // nil without a URL

	difficulties *stratum.DifficultyFile

	closers []io.Closer // in the order they were opened
}

// stopWithin bounds each of the steps of a stop, which are the four stages and the nodes, to keep the whole below five
// seconds.
const stopWithin = 900 * time.Millisecond

// open opens everything, or nothing and says why. from is what another process hands over, and sessions those of a run
// before this one.
func open(ctx context.Context, cfg *config, from *handover.Inherited, sessions []byte, log *slog.Logger) (p *pool, err error) {
	p = &pool{cfg: cfg, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	var shares *sharelog.Dir
	for _, step := range []func() error{
		// The ports come first: they are what another pool on this machine would hold.
		func() error { return p.listen(from) },
		p.openData,
		p.openCertificate,
		p.openEvents,
		func() error { return p.openUserList(ctx) },
		func() error { return p.openNodes(ctx) },
		// Up to here another process may use the data folder.
		func() (err error) { sessions, err = p.takeOver(ctx, from, sessions); return err },
		// The share log locks the folder, so it is opened before anything else in it.
		func() (err error) { shares, err = p.openLog(); return err },
		p.openChain,
		func() error { return p.openStats(ctx, shares) },
		p.openBlocks,
		func() error { return p.openServer(shares, sessions) },
		func() (err error) { p.pages, err = p.handler(); return err },
	} {
		if err := step(); err != nil {
			return p, err
		}
	}
	return p, nil
}

// Close closes everything that was opened, the last first.
func (p *pool) Close() error {
	var errs []error
	for _, c := range slices.Backward(p.closers) {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// closeOnce is a listener that the server has closed when all went well.
type closeOnce struct{ net.Listener }

func (c closeOnce) Close() error {
	if err := c.Listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// listen opens the ports, or takes over those that another process passes on.
func (p *pool) listen(from *handover.Inherited) error {
	open := func(flag, addr string) (net.Listener, error) {
		ln, err := from.Listen("tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("cannot listen on -%s %s: %w", flag, addr, err)
		}
		p.sockets = append(p.sockets, ln)
		p.closers = append(p.closers, closeOnce{ln})
		return ln, nil
	}
	for _, c := range p.cfg.ports {
		ln, err := open(c.flag, c.addr)
		if err != nil {
			return err
		}
		p.ports = append(p.ports, &stratum.Port{
			Listener:        ln,
			RequireTLS:      c.tls == tlsOnly,
			TrustedProxies:  p.cfg.proxies,
			StartDifficulty: difficulty.Difficulty(c.diff),
			MinDifficulty:   difficulty.Difficulty(c.minDiff),
		})
	}
	var err error
	p.web, err = open("http", p.cfg.HTTP)
	return err
}

func (p *pool) openData() error {
	if err := os.MkdirAll(p.cfg.Data, 0o755); err != nil {
		return fmt.Errorf("cannot make the data folder: %w", err)
	}
	return nil
}

// openCertificate opens the certificate, which is one of the pool's own making where none is given.
func (p *pool) openCertificate() (err error) {
	if !p.cfg.anyTLS() {
		return nil
	}
	cert, key := p.cfg.TLSCert, p.cfg.TLSKey
	if cert == "" {
		cert, key = filepath.Join(p.cfg.Data, "tls.crt"), filepath.Join(p.cfg.Data, "tls.key")
		if err := stratum.SelfSigned(cert, key); err != nil {
			return err
		}
	}
	p.certificate, err = stratum.OpenCertificate(cert, key, &stratum.CertificateOptions{Logger: p.log})
	if err != nil {
		return err
	}
	tls := p.certificate.TLSConfig()
	for i, c := range p.cfg.ports {
		if c.tls != tlsOff {
			p.ports[i].TLS = tls
		}
	}
	return nil
}

func (p *pool) openEvents() (err error) {
	if p.cfg.Events == "" {
		return nil
	}
	if p.eventFile, err = openAppend(p.cfg.Events); err != nil {
		return fmt.Errorf("cannot open the file of -events: %w", err)
	}
	p.closers = append(p.closers, p.eventFile)
	p.events, err = stratum.NewEventWriter(p.eventFile, &stratum.EventWriterOptions{Logger: p.log})
	return err
}

func (p *pool) openUserList(ctx context.Context) (err error) {
	if p.cfg.UsersURL == "" {
		return nil
	}
	p.userList, err = httpauth.New(p.cfg.UsersURL, &httpauth.Options{
		Names: p.cfg.names(), CacheFile: filepath.Join(p.cfg.Data, "users.json"), Logger: p.log,
	})
	if err != nil {
		return err
	}
	return p.userList.Load(ctx)
}

// takeOver waits until the process before has let go of the data folder, and returns the sessions that it leaves.
func (p *pool) takeOver(ctx context.Context, from *handover.Inherited, sessions []byte) ([]byte, error) {
	if from == nil {
		return sessions, nil
	}
	if err := from.Ready(); err != nil {
		return nil, err
	}
	parent := os.Getppid()
	sessions, err := from.Wait(ctx)
	if errors.Is(err, handover.ErrOrphaned) {
		p.log.Warn("the pool goes on without its sessions", "error", err)
		// A process that dies closes one file after the other, and its locks may come last. When all are closed its
		// children are given to another parent.
		for n := 0; os.Getppid() == parent && n < 500; n++ {
			time.Sleep(10 * time.Millisecond)
		}
		return nil, nil
	}
	return sessions, err
}

func (p *pool) openLog() (*sharelog.Dir, error) {
	shares, err := sharelog.OpenDir(filepath.Join(p.cfg.Data, "sharelog"), &sharelog.DirOptions{Logger: p.log})
	if err != nil {
		return nil, err
	}
	p.closers = append(p.closers, shares)
	return shares, nil
}

func (p *pool) openNodes(ctx context.Context) (err error) {
	if p.cfg.embedded() {
		return nil
	}
	if p.backend, err = openNodes(ctx, p.cfg, p.log); err == nil {
		p.closers = append(p.closers, p.backend)
	}
	return err
}

func (p *pool) openChain() (err error) {
	if !p.cfg.embedded() {
		return nil
	}
	if p.backend, err = openEmbedded(p.cfg, p.log); err == nil {
		p.closers = append(p.closers, p.backend)
	}
	return err
}

func (p *pool) openStats(ctx context.Context, shares *sharelog.Dir) error {
	store, err := pebblestats.Open(filepath.Join(p.cfg.Data, "stats"), nil)
	if err != nil {
		return err
	}
	p.closers = append(p.closers, store)
	if p.totals, err = stats.New(&stats.Options{AcceptStale: p.cfg.StaleGrace > 0}); err != nil {
		return err
	}
	place, err := p.totals.Restore(ctx, store)
	if err != nil {
		return err
	}
	var from sharelog.Position
	if err := from.UnmarshalText(place); err != nil {
		return err
	}
	count := func(ctx context.Context, shares []share.Share, next sharelog.Position) error {
		place, err := next.MarshalText()
		if err != nil {
			return err
		}
		return p.totals.Apply(ctx, shares, place)
	}
	if p.tail, err = sharelog.NewTail(shares, from, count, &sharelog.TailOptions{
		MaxErrors: -1, StopTimeout: stopWithin, Logger: p.log,
	}); err != nil {
		return err
	}
	p.flusher = stats.NewFlusher(p.totals, store, &stats.FlusherOptions{StopTimeout: stopWithin, Logger: p.log})
	return nil
}

func (p *pool) openBlocks() error {
	found, err := block.OpenFile(filepath.Join(p.cfg.Data, "blocks.jsonl"), &block.FileOptions{Logger: p.log})
	if err != nil {
		return err
	}
	p.found = found
	p.closers = append(p.closers, found)
	spool, err := block.OpenSpool(filepath.Join(p.cfg.Data, "blocks"), &block.SpoolOptions{Logger: p.log})
	if err != nil {
		return err
	}
	p.closers = append(p.closers, spool)
	p.blocks, err = block.NewMaker(spool, p.backend.submit, found, &block.MakerOptions{
		StopTimeout: stopWithin, Logger: p.log,
	})
	if err != nil {
		return err
	}
	p.watcher, err = block.NewWatcher(found, p.backend.confirm, &block.WatcherOptions{
		Interval: 2 * time.Second, ConfirmDepth: p.backend.confirmDepth, Logger: p.log,
	})
	return err
}

// keepInterval is how much of what is known of miners is lost when the process is killed. It is a variable for the tests.
var keepInterval = 10 * time.Second

func (p *pool) openServer(shares *sharelog.Dir, sessions []byte) error {
	builder, err := job.NewBuilder(job.Chain(p.cfg.Network), p.backend.payout, &job.BuilderOptions{
		Text: p.cfg.Text, VersionMask: p.cfg.mask,
	})
	if err != nil {
		return err
	}
	hub := job.NewHub(nil)
	p.maker, err = job.NewMaker(p.backend.source, builder.Build, hub, &job.MakerOptions{Logger: p.log})
	if err != nil {
		return err
	}
	var users stratum.Authorizer = p.userList
	if p.userList == nil {
		open, err := stratum.OpenUsers(filepath.Join(p.cfg.Data, "users"))
		if err != nil {
			return err
		}
		p.closers = append(p.closers, open)
		users = open
	}
	if p.writer, err = sharelog.NewWriter(shares, &sharelog.WriterOptions{
		StopTimeout: stopWithin, Logger: p.log,
	}); err != nil {
		return err
	}
	if p.difficulties, err = stratum.OpenDifficulties(filepath.Join(p.cfg.Data, "difficulties.jsonl"),
		&stratum.DifficultyFileOptions{Interval: keepInterval, Logger: p.log}); err != nil {
		return err
	}
	opts := p.cfg.serverOptions()
	opts.Difficulties = p.difficulties
	opts.Logger = p.log
	if most, fewer := affordable(opts.MaxSessions, descriptorLimit()); fewer {
		opts.MaxSessions = most
		p.log.Warn("the limit of descriptors allows fewer miners than -max-sessions does", "max-sessions", most,
			"descriptors", descriptorLimit())
	}
	opts.Hooks = stratum.Hooks{
		Authorized: func(s *stratum.Session) { p.learnName(s.Worker()) },
		Registered: func(_ *stratum.Session, w share.Worker, userID int32) { p.learnName(w, userID) },
	}
	if p.events != nil {
		opts.Events = p.events
	}
	if p.server, err = stratum.New(hub, users, p.writer, p.blocks, opts); err != nil {
		return err
	}
	if sessions == nil {
		return nil
	}
	n, err := p.server.RestoreSessions(bytes.NewReader(sessions))
	if err != nil {
		p.log.Warn("the sessions of the process before are lost", "error", err)
	} else {
		p.log.Info("sessions taken over", "sessions", n)
	}
	return nil
}

// learnName gives the statistics the names that records do not carry.
func (p *pool) learnName(worker share.Worker, user int32) {
	p.totals.Observe(user, worker.ID(), worker)
}

// A stage is a part of the pool that stops as one.
type stage struct {
	*errgroup.Group
	ctx  context.Context
	stop context.CancelFunc
}

// run runs the pool until ctx ends, or until another process is ready to take over, which it returns. Then the stages
// stop in the order in which shares flow through them, each when the one before has ended: miners, the log, the totals
// that are counted from it, the store that these are kept in.
func (p *pool) run(ctx context.Context, signals <-chan os.Signal) (heir *handover.Child, err error) {
	stages := make([]stage, 4)
	for i := range stages {
		stageCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
		defer stop()
		group, stageCtx := errgroup.WithContext(stageCtx)
		stages[i] = stage{group, stageCtx, stop}
	}
	front, back, count, store := stages[0], stages[1], stages[2], stages[3]
	defer context.AfterFunc(ctx, front.stop)()
	for _, s := range stages[1:] {
		defer context.AfterFunc(s.ctx, front.stop)() // a dead queue closes the front door
	}

	store.Go(func() error { return p.flusher.Run(store.ctx) })
	count.Go(func() error { return p.tail.Run(count.ctx) })
	back.Go(func() error { return p.writer.Run(back.ctx) })
	back.Go(func() error { return p.difficulties.Run(back.ctx) })
	back.Go(func() error { return p.blocks.Run(back.ctx) })
	back.Go(func() error { return p.watcher.Run(back.ctx) })
	if p.events != nil {
		back.Go(func() error { return p.events.Run(back.ctx) })
	}

	listeners := make([]net.Listener, len(p.ports))
	for i, port := range p.ports {
		listeners[i] = port
	}
	front.Go(func() error { return p.maker.Run(front.ctx) })
	front.Go(func() error { return p.server.Serve(front.ctx, listeners...) })
	front.Go(func() error { return serveHTTP(front.ctx, p.web, p.pages) })
	front.Go(func() error { return p.report(front.ctx) })
	if p.certificate != nil {
		front.Go(func() error { return p.certificate.Run(front.ctx) })
	}
	if p.userList != nil {
		front.Go(func() error { return p.userList.Run(front.ctx) })
	}
	mining, stopMining := context.WithCancel(front.ctx)
	defer stopMining()
	if p.cfg.Mine > 0 {
		front.Go(func() error { return p.mine(mining) })
	}
	front.Go(func() error {
		if heir = p.obey(front.ctx, signals); heir != nil {
			stopMining()
			p.sendAway(front.ctx)
			front.stop()
		}
		return nil
	})
	plain, encrypted := p.urls()
	p.log.Info("the pool is open", "miners", plain, "statistics", "http://"+p.web.Addr().String()+"/", "tls", encrypted,
		"network", p.cfg.Network, "chain", p.backend.name, "pays", p.backend.address, "data", p.cfg.Data)

	<-front.ctx.Done()
	var errs []error
	for _, s := range stages {
		s.stop()
		errs = append(errs, s.Wait())
	}
	if err = errors.Join(errs...); err == nil {
		p.log.Info("the pool is closed")
	}
	return heir, err
}

// urls returns where miners connect, with commas between them.
func (p *pool) urls() (plain, encrypted string) {
	var all [2][]string
	for _, port := range p.ports {
		if !port.RequireTLS {
			all[0] = append(all[0], "stratum+tcp://"+port.Addr().String())
		}
		if port.TLS != nil {
			all[1] = append(all[1], "stratum+ssl://"+port.Addr().String())
		}
	}
	return strings.Join(all[0], ","), strings.Join(all[1], ",")
}

// serveHTTP serves the statistics until ctx ends.
func serveHTTP(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
		stopped <- nil
	})
	err := srv.Serve(ln)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

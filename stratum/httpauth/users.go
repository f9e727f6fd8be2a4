package httpauth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
)

// Options tune Users. The zero value follows a list as BTCPool does.
type Options struct {
	// Names must be the rules of the server: Authorize takes names as they leave it.
	Names stratum.NameRules

	Interval time.Duration // between two looks at the list; 0 means 10s
	Timeout  time.Duration // for one page, to its last byte; 0 means 10s
	MaxPage  int64         // bytes of one page, unpacked; 0 means 64 MiB
	MaxUsers int           // a page that would bring more is refused; 0 means 5,000,000

	// CacheFile is where the list is kept for a start at which the API is down; "" keeps nothing. The file is written
	// whole or not at all, after Load, at most once a minute while Run finds changes, and when Run ends.
	CacheFile string

	// Client makes the requests; nil means one like http.DefaultClient. Its CheckRedirect is not used: redirects are
	// errors that name where the list has gone, since a server that forwards may forget last_id.
	Client *http.Client

	Logger *slog.Logger // nil discards
}

const (
	cacheInterval = time.Minute // Between two writes of the cache.
	maxPages      = 100_000     // Of one look at the list.
)

// Users is a stratum.Authorizer that knows the users of a list. Authorize looks into memory only, whatever the API does.
type Users struct {
	url  *url.URL
	key  string // what a cache file of this URL says; a hash, as the URL may hold a secret
	opts Options

	// fetching is held by whoever talks to the API. What follows belongs to them, and they alone change the list.
	fetching sync.Mutex
	complete bool      // the list was read from its beginning
	dirty    bool      // the list has changed since it was last kept
	kept     time.Time // when that was
	failing  string    // the last error of the API, "" when it answers
	unkept   string    // the last error of the cache file
	odd      [2]int    // entries that name nobody, and such that gave way, when that was last logged

	mu    sync.RWMutex
	list  *list // nil before there is one
	stats Stats
}

var _ stratum.Authorizer = (*Users)(nil)

// Stats tell how fresh the list is.
type Stats struct {
	Users     int       // in the list
	LastID    int32     // the highest number seen
	Updated   time.Time // when the end of the list was last reached; zero when never
	FromCache bool      // the list comes from the cache file, since the API has not answered yet
	Failures  uint64    // looks at the list that failed
}

// New returns Users of the list at rawURL, which is http or https and may have a query of its own, such as a key. It
// does not connect.
func New(rawURL string, opts *Options) (*Users, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Interval == 0 {
		o.Interval = 10 * time.Second
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.MaxPage == 0 {
		o.MaxPage = 64 << 20
	}
	if o.MaxUsers == 0 {
		o.MaxUsers = 5_000_000
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	var errs []error
	u, err := url.Parse(rawURL)
	switch {
	case err != nil:
		errs = append(errs, errors.New("httpauth: new: the URL of the list is not a URL")) // without what it holds
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		errs = append(errs, errors.New("httpauth: new: the URL of the list is not of the form http://host/path or https://host/path"))
	default:
		u.Fragment, u.RawFragment = "", ""
	}
	if o.Interval < 0 || o.Timeout < 0 {
		errs = append(errs, fmt.Errorf("httpauth: new: interval %v or timeout %v is negative", o.Interval, o.Timeout))
	}
	if o.MaxPage < 0 || o.MaxUsers < 0 {
		errs = append(errs, fmt.Errorf("httpauth: new: page limit %d or user limit %d is negative", o.MaxPage, o.MaxUsers))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	var client http.Client
	if o.Client != nil {
		client = *o.Client
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	o.Client = &client
	sum := sha256.Sum256([]byte(u.String()))
	return &Users{url: u, key: hex.EncodeToString(sum[:]), opts: o}, nil
}

// Authorize implements [stratum.Authorizer]. It accepts any password, and never waits for the API.
func (u *Users) Authorize(_ context.Context, w share.Worker, _ string) (int32, error) {
	u.mu.RLock()
	defer u.mu.RUnlock()
	if u.list == nil {
		return 0, errors.New("httpauth: authorize: the list of users has not been read yet")
	}
	user, ok := u.list.users[w.User]
	if !ok {
		return 0, fmt.Errorf("%w: %q is not in the list", stratum.ErrUnknownUser, w.User)
	}
	return user.id, nil
}

// Names calls yield with every user and its number until it returns false, in no order. yield must not call Users.
func (u *Users) Names(yield func(name string, userID int32) bool) {
	u.mu.RLock()
	defer u.mu.RUnlock()
	if u.list == nil {
		return
	}
	for name, user := range u.list.users {
		if !yield(name, user.id) {
			return
		}
	}
}

// Stats returns how fresh the list is.
func (u *Users) Stats() Stats {
	u.mu.RLock()
	defer u.mu.RUnlock()
	s := u.stats
	if u.list != nil {
		s.Users, s.LastID = len(u.list.users), u.list.lastID
	}
	return s
}

// Load reads the list from its beginning to its end. When that fails, or the list is empty all of a sudden, it takes the
// users in the cache file instead, if there is one of this URL, logs that and returns nil; Run then goes on trying. A
// server should not listen before Load has returned nil, or its first miners are turned away.
func (u *Users) Load(ctx context.Context) error {
	u.fetching.Lock()
	defer u.fetching.Unlock()
	var cacheErr error
	if u.opts.CacheFile != "" && !u.complete {
		cacheErr = u.readCache()
	}
	err := u.fetchAll(ctx)
	if err == nil {
		u.report(nil)
		u.keep()
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("httpauth: load: %w", ctx.Err())
	}
	if u.list == nil {
		err = fmt.Errorf("httpauth: load the list at %s: %w", u.where(), err)
		if cacheErr != nil {
			return errors.Join(err, fmt.Errorf("httpauth: load cache: %w", cacheErr))
		}
		return err
	}
	u.report(err)
	return nil
}

// Run looks at the list every Options.Interval until ctx ends, and then returns nil. It fetches on without delay as long
// as there are more pages. A look that fails changes nothing that is known, and is logged when the reason is another
// than last time. Without a Load, or after one that had to do with the cache file, it first reads the whole list.
func (u *Users) Run(ctx context.Context) error {
	timer := time.NewTimer(u.opts.Interval)
	defer timer.Stop()
	if u.Stats().Updated.IsZero() {
		timer.Reset(0)
	}
	for {
		select {
		case <-timer.C:
			u.look(ctx)
			timer.Reset(u.opts.Interval)
		case <-ctx.Done():
			u.fetching.Lock()
			defer u.fetching.Unlock()
			u.keep()
			return nil
		}
	}
}

func (u *Users) look(ctx context.Context) {
	u.fetching.Lock()
	defer u.fetching.Unlock()
	var err error
	if u.complete {
		err = u.fetchNew(ctx)
	} else {
		err = u.fetchAll(ctx)
	}
	if ctx.Err() != nil {
		return
	}
	u.report(err)
	if time.Since(u.kept) >= cacheInterval {
		u.keep()
	}
}

// fetchAll reads the list from its beginning and puts it in the place of what is known.
func (u *Users) fetchAll(ctx context.Context) error {
	fresh := newList()
	if _, err := u.follow(ctx, fresh, func(f func()) { f() }); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.list != nil && len(fresh.users) == 0 && len(u.list.users) > 0 {
		return fmt.Errorf("the list is empty, and had %d users", len(u.list.users))
	}
	if len(fresh.users) == 0 {
		u.opts.Logger.Warn("the list of users is empty", "list", u.where())
	}
	u.list, u.stats.FromCache, u.stats.Updated = fresh, false, time.Now()
	u.complete, u.dirty = true, true
	return nil
}

// fetchNew reads what has been added to the list. Pages that came before one that fails are kept.
func (u *Users) fetchNew(ctx context.Context) error {
	changed, err := u.follow(ctx, u.list, func(f func()) {
		u.mu.Lock()
		defer u.mu.Unlock()
		f()
	})
	u.dirty = u.dirty || changed > 0
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stats.Updated = time.Now()
	return nil
}

// follow adds pages to l until one brings no higher number, and returns how many users changed. That is the empty page
// that ends a list, or a list in one piece that has been read before. locked calls a function that changes l.
func (u *Users) follow(ctx context.Context, l *list, locked func(func())) (changed int, err error) {
	var odd [2]int
	defer func() {
		if odd != [2]int{} && odd != u.odd {
			u.odd = odd
			u.opts.Logger.Warn("the list of users has entries that are not used", "list", u.where(), "bad", odd[0], "shadowed", odd[1])
		}
	}()
	for n := range maxPages {
		p, err := u.fetch(ctx, l.lastID)
		if err != nil {
			return changed, err
		}
		if err := l.fits(p, u.opts.Names, u.opts.MaxUsers); err != nil {
			return changed, err
		}
		last, shadowed := l.lastID, 0
		locked(func() {
			var more int
			more, shadowed = l.add(p, u.opts.Names)
			changed += more
		})
		atEnd := l.lastID == last
		if n == 0 || !atEnd { // or a list in one piece would count twice
			odd[0] += p.bad
			odd[1] += shadowed
		}
		if atEnd {
			return changed, nil
		}
	}
	return changed, fmt.Errorf("the list has no end in %d pages", maxPages)
}

// fetch gets the page after lastID. Its errors hold neither the query of the URL, in which there may be a secret, nor a
// port that changes from call to call, so that the same trouble reads the same.
func (u *Users) fetch(ctx context.Context, lastID int32) (*page, error) {
	ctx, cancel := context.WithTimeout(ctx, u.opts.Timeout)
	defer cancel()
	at := *u.url
	if at.RawQuery != "" {
		at.RawQuery += "&"
	}
	at.RawQuery += "last_id=" + strconv.FormatInt(int64(lastID), 10)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, errors.New("the URL makes no request")
	}
	req.Header.Set("Accept", "application/json")
	p, err := u.exchange(req)
	if err == nil {
		return p, nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, fmt.Errorf("no whole answer within %v", u.opts.Timeout)
	}
	var inURL *url.Error
	if errors.As(err, &inURL) {
		err = inURL.Err
	}
	var inNet *net.OpError
	if errors.As(err, &inNet) {
		err = fmt.Errorf("%s: %w", inNet.Op, inNet.Err)
	}
	return nil, err
}

func (u *Users) exchange(req *http.Request) (*page, error) {
	resp, err := u.opts.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK:
		return decodePage(resp.Body, u.opts.MaxPage, u.opts.MaxUsers)
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		to := "an address that makes no sense"
		if loc, err := resp.Location(); err == nil {
			to = clip(fmt.Sprintf("%q", address(loc)))
		}
		return nil, fmt.Errorf("status %d sends on to %s, which is not followed", resp.StatusCode, to)
	default:
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
}

// where returns the URL without what may be secret in it.
func (u *Users) where() string { return address(u.url) }

func address(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// report logs how a look at the list ended, when that is news.
func (u *Users) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
		u.mu.Lock()
		u.stats.Failures++
		u.mu.Unlock()
	}
	if text == u.failing {
		return
	}
	u.failing = text
	if err != nil {
		s := u.Stats()
		u.opts.Logger.Error("cannot read the list of users, the old one stands", "list", u.where(), "users", s.Users,
			"fromCache", s.FromCache, "error", err)
	} else {
		u.opts.Logger.Info("the list of users is read again", "list", u.where(), "users", u.Stats().Users)
	}
}

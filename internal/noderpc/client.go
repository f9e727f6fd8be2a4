package noderpc

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// Options tune a Client. The zero value suits a node on the same machine or network.
type Options struct {
	// Timeout bounds a call whose context has no deadline of its own; 0 means 5 s, the limit BTCPool sets. A call with
	// a deadline, such as a long poll, may take until then.
	Timeout time.Duration

	// MaxReply is the largest reply taken, in bytes; 0 means 64 MiB. A full template of the main chain has about 10.
	MaxReply int64
}

// A Client calls one node. It keeps connections open between calls and follows no redirects and no proxy settings. Its
// methods may be called concurrently.
type Client struct {
	node     *endpoint
	timeout  time.Duration
	maxReply int64
	http     *http.Client

	mu         sync.Mutex // guards the credentials
	user, pass string
}

// New returns a client for node, or everything that is wrong with its description. It opens no connection and does
// not read the cookie file, which may appear later; it does read CertFile.
func New(node Node, opts *Options) (*Client, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	e, err := node.resolve()
	if o.Timeout < 0 {
		err = errors.Join(err, fmt.Errorf("node: negative timeout %v", o.Timeout))
	}
	if o.MaxReply < 0 {
		err = errors.Join(err, fmt.Errorf("node: negative reply limit %d", o.MaxReply))
	}
	if err != nil {
		return nil, err
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.MaxReply == 0 {
		o.MaxReply = 64 << 20
	}
	return &Client{
		node:     e,
		timeout:  o.Timeout,
		maxReply: o.MaxReply,
		user:     e.user,
		pass:     e.pass,
		http: &http.Client{
			Transport: &http.Transport{
				DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
				TLSClientConfig:     e.tls,
				TLSHandshakeTimeout: 5 * time.Second,
				DisableCompression:  true,
				MaxIdleConnsPerHost: 4,
				// bitcoind drops a connection that is idle for 30 s; this end does so first.
				IdleConnTimeout:        20 * time.Second,
				MaxResponseHeaderBytes: 64 << 10,
			},
			// A redirected POST would lose its body or show the password to another host.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Name returns the scheme and host of the node, as errors print it.
func (c *Client) Name() string { return c.node.name }

// CloseIdle closes the connections that no call uses at the moment. The client remains usable.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// Call calls method and decodes what it returns into result, which may be nil. params is a slice that encodes as a JSON
// array, a json.RawMessage that holds one and is sent as it stands, or nil for none. An error that the node reports is an
// [*RPCError].
func (c *Client) Call(ctx context.Context, method string, params any, result any) error {
	body, status, err := c.do(ctx, method, params)
	if err != nil {
		return c.fail(method, err)
	}
	raw, err := decodeReply(body, status)
	if err != nil {
		return c.fail(method, err)
	}
	if result == nil {
		return nil
	}
	if len(raw) == 0 {
		return c.fail(method, &ReplyError{Reason: "neither a result nor an error", Body: excerpt(body)})
	}
	if err := json.Unmarshal(raw, result); err != nil {
		return c.fail(method, &ReplyError{Reason: "an unexpected result: " + err.Error(), Body: excerpt(body)})
	}
	return nil
}

// CallRaw calls method and returns the whole body of the reply as it came, JSON-RPC wrapper and trailing newline
// included, which is what a template's ID is the hash of. An error that the node reports is an [*RPCError]. A body
// beyond 64 KiB that came with HTTP status 200 is known to start like a JSON object and is otherwise left to the
// caller's parser: no node's error is that long, and decoding a template twice costs more than all the rest.
func (c *Client) CallRaw(ctx context.Context, method string, params any) ([]byte, error) {
	body, status, err := c.do(ctx, method, params)
	if err != nil {
		return nil, c.fail(method, err)
	}
	if len(body) > 64<<10 && success(status) && firstByte(body) == '{' {
		return body, nil
	}
	if _, err := decodeReply(body, status); err != nil {
		return nil, c.fail(method, err)
	}
	return body, nil
}

// fail puts the names of node and method into err.
func (c *Client) fail(method string, err error) error {
	switch e := err.(type) {
	case *RPCError:
		e.Node, e.Method = c.node.name, method
		return e
	case *HTTPError:
		e.Node, e.Method = c.node.name, method
		return e
	case *ReplyError:
		e.Node, e.Method = c.node.name, method
		return e
	}
	return fmt.Errorf("node %s: %s: %w", c.node.name, method, err)
}

// do sends the call, with the cookie read anew if it is refused, and returns the body and HTTP status of the reply.
func (c *Client) do(ctx context.Context, method string, params any) ([]byte, int, error) {
	request, err := encodeRequest(method, params)
	if err != nil {
		return nil, 0, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	user, pass, err := c.credentials()
	if err != nil {
		return nil, 0, err
	}
	body, status, err := c.post(ctx, request, user, pass)
	if err == nil && status == http.StatusUnauthorized && c.node.cookieFile != "" {
		// bitcoind has been started anew and made a new cookie, or is about to.
		newUser, newPass, cookieErr := c.readCookie()
		switch {
		case cookieErr != nil:
			return nil, 0, cookieErr
		case newUser != user || newPass != pass:
			body, status, err = c.post(ctx, request, newUser, newPass)
		}
	}
	return body, status, err
}

func (c *Client) credentials() (user, pass string, err error) {
	c.mu.Lock()
	user, pass = c.user, c.pass
	c.mu.Unlock()
	if c.node.cookieFile == "" || user != "" {
		return user, pass, nil
	}
	return c.readCookie()
}

func (c *Client) readCookie() (user, pass string, err error) {
	user, pass, err = readCookie(c.node.cookieFile)
	if err == nil {
		c.mu.Lock()
		c.user, c.pass = user, pass
		c.mu.Unlock()
	}
	return user, pass, err
}

// noKey marks a request as one that may be sent again when a kept connection turns out to be closed by the node. The
// header itself is not sent. Every call made here may be repeated: a node that has the block already says so.
var noKey = []string{}

func (c *Client) post(ctx context.Context, request []byte, user, pass string) ([]byte, int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.node.url, bytes.NewReader(request))
	if err != nil {
		return nil, 0, errors.New("the URL makes no request")
	}
	req.Header["Idempotency-Key"] = noKey
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "poolkit")
	if user != "" {
		req.SetBasicAuth(user, pass)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, 0, explain(ctx, err)
	}
	defer resp.Body.Close()
	body, err := readBounded(resp.Body, resp.ContentLength, c.maxReply)
	switch {
	case errors.Is(err, errTooLarge):
		return nil, 0, fmt.Errorf("%w than %d bytes", errTooLarge, c.maxReply)
	case err != nil:
		return nil, 0, fmt.Errorf("the reply broke off after %d bytes: %w", len(body), explain(ctx, err))
	}
	return body, resp.StatusCode, nil
}

// explain drops the URL from err, which may hold secrets, and names the context's reason where that is what ended the
// call.
func explain(ctx context.Context, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, context.DeadlineExceeded) {
			return fmt.Errorf("no answer in time: %w", cause)
		}
		return cause
	}
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return fmt.Errorf("%w; name the node's own certificate as CertFile to trust it", err)
	}
	return err
}

// encodeRequest makes the request. Its id never changes, so that equal templates come as equal bytes.
func encodeRequest(method string, params any) ([]byte, error) {
	m, err := json.Marshal(method)
	if err != nil {
		return nil, fmt.Errorf("method: %w", err)
	}
	var p []byte
	switch v := params.(type) {
	case nil:
		p = []byte("[]")
	case json.RawMessage:
		// A block is megabytes of hexadecimal digits: it is not looked through again.
		p = v
	default:
		if p, err = json.Marshal(v); err != nil {
			return nil, fmt.Errorf("params: %w", err)
		}
	}
	const head, middle, tail = `{"jsonrpc":"1.0","id":"1","method":`, `,"params":`, `}`
	b := make([]byte, 0, len(head)+len(m)+len(middle)+len(p)+len(tail))
	b = append(b, head...)
	b = append(b, m...)
	b = append(b, middle...)
	b = append(b, p...)
	return append(b, tail...), nil
}

var errTooLarge = errors.New("the reply is larger")

// readBounded reads r to its end, at most limit bytes of it. size is how much is expected, or not above 0 when unknown;
// it is believed only for small amounts at a time.
func readBounded(r io.Reader, size, limit int64) ([]byte, error) {
	if size > limit {
		return nil, errTooLarge
	}
	var b bytes.Buffer
	if size > 0 {
		// The room that Buffer.ReadFrom wants beyond the last byte spares it a copy of the whole.
		b.Grow(int(min(size, 8<<20)) + bytes.MinRead)
	}
	_, err := b.ReadFrom(io.LimitReader(r, limit+1))
	if err == nil && int64(b.Len()) > limit {
		err = errTooLarge
	}
	return b.Bytes(), err
}

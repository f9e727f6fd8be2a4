package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
)

// A portConfig is what one -listen or -tls-listen says.
type portConfig struct {
	flag          string
	addr          string
	diff, minDiff number
	tls           tlsUse
}

// A tlsUse says who is served on a port.
type tlsUse string

const (
	tlsBoth tlsUse = ""     // those that encrypt and those that do not
	tlsOnly tlsUse = "only" // those that encrypt
	tlsOff  tlsUse = "off"  // those that do not
)

func (p portConfig) String() string { return "-" + p.flag + " " + p.addr }

// parsePort reads "host:port,option=value,…".
func parsePort(flag, text string) (portConfig, error) {
	addr, options, more := strings.Cut(text, ",")
	p := portConfig{flag: flag, addr: addr}
	if err := checkAddress(flag, addr); err != nil {
		return p, err
	}
	for more {
		var option string
		option, options, more = strings.Cut(options, ",")
		key, value, _ := strings.Cut(option, "=")
		var err error
		switch key {
		case "diff":
			err = errors.Join(p.diff.Set(value), p.diff.assignable(key))
		case "min-diff":
			err = errors.Join(p.minDiff.Set(value), p.minDiff.assignable(key))
		case "tls":
			if p.tls = tlsUse(value); p.tls != tlsOnly && p.tls != tlsOff {
				err = errors.New("want only or off")
			}
		default:
			err = errors.New("want diff=, min-diff= or tls=")
		}
		if err != nil {
			return p, fmt.Errorf("%v, %q: %w", p, option, err)
		}
	}
	return p, nil
}

func checkAddress(flag, addr string) error {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return fmt.Errorf("-%s %q is not host:port: %w", flag, addr, err)
	}
	return nil
}

func (c *config) checkPorts() error {
	c.ports = nil
	for _, from := range []struct {
		flag  string
		texts []string
	}{{"listen", c.Listen}, {"tls-listen", c.TLSListen}} {
		for _, text := range from.texts {
			p, err := parsePort(from.flag, text)
			if err != nil {
				return err
			}
			switch {
			case from.flag == "tls-listen" && p.tls == tlsOff:
				return fmt.Errorf("%v is for TLS only, which tls=off forbids", p)
			case from.flag == "tls-listen":
				p.tls = tlsOnly
			}
			if err := c.checkPort(&p); err != nil {
				return err
			}
			c.ports = append(c.ports, p)
		}
	}
	switch {
	case len(c.ports) == 0:
		return errors.New("-listen names no address")
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return errors.New("-tls-cert and -tls-key belong together: one of them is missing")
	case c.TLSCert != "" && !c.TLS:
		return errors.New("-tls-cert is of no use with -tls=false")
	}
	return nil
}

func (c *config) checkPort(p *portConfig) error {
	low := p.minDiff
	if low == 0 {
		low = c.MinDiff
	}
	switch {
	case p.tls == tlsOnly && !c.TLS:
		return fmt.Errorf("%v is for TLS only, which -tls=false forbids", *p)
	case p.minDiff > c.MaxDiff || p.diff > c.MaxDiff:
		return fmt.Errorf("%v: its difficulties are above -max-diff %v", *p, &c.MaxDiff)
	case p.diff != 0 && p.diff < low:
		return fmt.Errorf("%v: diff=%v is below the lowest difficulty %v: give the port a min-diff of its own", *p, &p.diff, &low)
	}
	if !c.TLS {
		p.tls = tlsOff
	}
	return nil
}

// anyTLS reports whether a certificate is needed.
func (c *config) anyTLS() bool {
	for _, p := range c.ports {
		if p.tls != tlsOff {
			return true
		}
	}
	return false
}

// minQueue and the like are what stratum asks of its options.
const (
	minQueue = 16 << 10
	maxRate  = 1_000_000_000
)

func (c *config) checkNumbers() error {
	switch {
	case c.ServerID < 1 || c.ServerID > 255:
		return fmt.Errorf("-server-id %d is not between 1 and 255", c.ServerID)
	case c.En2Size < 4 || c.En2Size > job.Extranonce2Size:
		return fmt.Errorf("-extranonce2-size %d is not between 4 and %d", c.En2Size, job.Extranonce2Size)
	case c.BanPercent > 100:
		return fmt.Errorf("-ban-percent %d is above 100", c.BanPercent)
	case time.Duration(c.BanTime) > 365*24*time.Hour:
		return fmt.Errorf("-ban-time %v is longer than a year", &c.BanTime)
	case c.ConnectRate > maxRate || c.RequestRate > maxRate:
		return fmt.Errorf("-connect-rate %d or -request-rate %d is above %d", c.ConnectRate, c.RequestRate, maxRate)
	case c.MaxPerAddress < -1 || c.MaxSessions < -1:
		return fmt.Errorf("-max-per-address %d or -max-sessions %d is neither a number of connections nor -1 for no limit",
			c.MaxPerAddress, c.MaxSessions)
	case c.MaxQueue != 0 && c.MaxQueue < minQueue:
		return fmt.Errorf("-max-queue %d is below %d, which a job may need", c.MaxQueue, minQueue)
	}
	for _, v := range []struct {
		name string
		time span
	}{{"notify-interval", c.Notify}, {"stale-grace", c.StaleGrace}, {"drain", c.Drain}} {
		if v.time < 0 {
			return fmt.Errorf("-%s %v is below 0", v.name, &v.time)
		}
	}
	switch strings.ToLower(c.VersionMask) {
	case "", "bip320":
		c.mask = job.DefaultVersionMask
	case "bip323":
		c.mask = stratum.BIP323VersionMask
	default:
		n, err := strconv.ParseUint(strings.TrimPrefix(c.VersionMask, "0x"), 16, 32)
		if err != nil || n == 0 {
			return fmt.Errorf("-version-mask %q is neither bip320, bip323 nor a mask such as 1fffe000", c.VersionMask)
		}
		c.mask = uint32(n)
	}
	return nil
}

func (c *config) checkUsers() error {
	if u, err := url.Parse(c.UsersURL); c.UsersURL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		return errors.New("-users-url is not of the form http://host/path or https://host/path") // what it is may be secret
	}
	if share.FilterName(c.UserSuffix) != c.UserSuffix || strings.Contains(c.UserSuffix, ".") {
		return fmt.Errorf("-user-suffix %q has characters that user names do not have", c.UserSuffix)
	}
	c.single = stratum.SingleUser{}
	if c.SingleUser == "" {
		return nil
	}
	name, number, _ := strings.Cut(c.SingleUser, ":")
	id, err := strconv.ParseInt(number, 10, 32)
	if err != nil || id <= 0 {
		return fmt.Errorf("-single-user %q is not name:number, with a number above 0", c.SingleUser)
	}
	if w, err := share.ParseWorker(name); err != nil || w.User != name {
		return fmt.Errorf("-single-user %q: %q is not a user name", c.SingleUser, name)
	}
	c.single = stratum.SingleUser{Name: name, UserID: int32(id)}
	return nil
}

func (c *config) checkNetworks() (err error) {
	if c.proxies, err = parseNetworks("proxies", c.Proxies); err != nil {
		return err
	}
	if c.allowed, err = parseNetworks("allow-list", c.AllowList); err != nil {
		return err
	}
	for _, p := range c.proxies {
		if c.Mine > 0 && (p.Contains(netip.IPv6Loopback()) || p.Contains(netip.AddrFrom4([4]byte{127, 0, 0, 1}))) {
			return fmt.Errorf("the CPU miner connects from this machine and not through a balancer, which -proxies %v demands: "+
				"turn it off with -mine 0", p)
		}
	}
	return nil
}

func parseNetworks(flag string, lists []string) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	for _, list := range lists {
		more, err := stratum.ParsePrefixes(list)
		if err != nil {
			return nil, fmt.Errorf("-%s: %w", flag, err)
		}
		networks = append(networks, more...)
	}
	return networks, nil
}

// limits are those of stratum, or none but the ones that are given.
func (c *config) limits() stratum.Limits {
	var l stratum.Limits
	set := func(field *int, value int) {
		if value != 0 {
			*field = value
		}
	}
	if !c.Ban {
		l = stratum.NoLimits()
	}
	l.AllowList = c.allowed
	set(&l.MaxPerAddress, c.MaxPerAddress)
	set(&l.ConnectRate, c.ConnectRate)
	set(&l.RequestRate, c.RequestRate)
	set(&l.InvalidPercent, c.BanPercent)
	if c.RequestRate > 0 {
		l.RequestPatience = 0
	}
	if c.BanTime != 0 {
		l.BanTime = time.Duration(c.BanTime)
	}
	if c.BanTime > 0 {
		l.InvalidPercent, l.BadWorkers = c.BanPercent, 0
	}
	return l
}

// names are the rules for user names, which also hold for the list of users.
func (c *config) names() stratum.NameRules {
	return stratum.NameRules{KeepCase: c.KeepCase, StripSuffix: c.UserSuffix != "", SuffixSeparator: c.UserSuffix}
}

// serverOptions are what the settings say about the server. What has to be opened is missing.
func (c *config) serverOptions() *stratum.Options {
	o := &stratum.Options{
		Names:           c.names(),
		SingleUser:      c.single,
		Limits:          c.limits(),
		ServerID:        uint8(c.ServerID),
		Extranonce2Size: c.En2Size,
		VersionMask:     c.mask,
		StartDifficulty: difficulty.Difficulty(c.Diff),
		MinDifficulty:   difficulty.Difficulty(c.MinDiff),
		MaxDifficulty:   difficulty.Difficulty(c.MaxDiff),
		AboveNetwork:    *c.AboveNet,
		NiceHash:        stratum.NiceHashOptions{Forced: c.NiceHash, MinDifficulty: difficulty.Difficulty(c.NiceHashMin)},
		MultiWorker:     c.MultiWorker,
		ResumeTime:      time.Duration(c.ResumeTime),
		KeepDifficulty:  time.Duration(c.KeepDiff),
		NotifyInterval:  time.Duration(c.Notify),
		LoginTimeout:    time.Duration(c.LoginTime),
		IdleTimeout:     time.Duration(c.IdleTime),
		DrainTimeout:    stopWithin,
		StaleGrace:      time.Duration(c.StaleGrace),
		MaxSessions:     c.MaxSessions,
		MaxQueue:        c.MaxQueue,
	}
	o.NewPolicy = c.Vardiff.policy()
	return o
}

// spareDescriptors are kept from miners: a pool without any cannot reach its node to submit a block, nor begin another
// file of the share log.
const spareDescriptors = 256

// affordable returns how many miners the descriptors of the process suffice for, where that is fewer than there may be:
// those beyond are refused, and go to another pool, where they would otherwise wait at a door that nobody opens.
func affordable(maxSessions, descriptors int) (sessions int, fewer bool) {
	most := max(descriptors-spareDescriptors, descriptors/2)
	wanted := maxSessions
	if wanted == 0 {
		wanted = 16000 // stratum's default
	}
	if descriptors == 0 || wanted > 0 && wanted <= most {
		return maxSessions, false
	}
	return most, true
}

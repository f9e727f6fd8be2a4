package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/stratum"
)

// A vardiff is the name of a way to choose miners' difficulties.
type vardiff string

const defaultVardiff vardiff = "sequential"

// A namedPolicy makes the policy of a session, whose decisions the server bounds.
type namedPolicy struct {
	name vardiff
	make func(s *stratum.Session) (difficulty.Policy, error)
}

var vardiffs = []namedPolicy{
	{"sequential", func(s *stratum.Session) (difficulty.Policy, error) {
		return difficulty.NewSequential(&difficulty.SequentialOptions{
			Start: s.StartDifficulty(), Min: s.MinDifficulty(), Max: s.MaxDifficulty(), Grid: s.Grid(),
		})
	}},
	{"btcpool", func(s *stratum.Session) (difficulty.Policy, error) {
		return difficulty.NewVardiff(&difficulty.VardiffOptions{
			Start: s.StartDifficulty(), Min: s.MinDifficulty(), Max: s.MaxDifficulty(),
		})
	}},
	{"btcpool-improved", func(s *stratum.Session) (difficulty.Policy, error) {
		return difficulty.NewVardiff(&difficulty.VardiffOptions{
			Start: s.StartDifficulty(), Min: s.MinDifficulty(), Max: s.MaxDifficulty(), Improved: true,
		})
	}},
	{"ckpool", func(s *stratum.Session) (difficulty.Policy, error) {
		return difficulty.NewDecaying(&difficulty.DecayingOptions{
			Start: s.StartDifficulty(), Min: s.MinDifficulty(), Max: s.MaxDifficulty(), Grid: s.Grid(),
		})
	}},
	{"sv2", func(s *stratum.Session) (difficulty.Policy, error) {
		return difficulty.NewLadder(&difficulty.LadderOptions{
			Start: s.StartDifficulty(), Min: s.MinDifficulty(), Max: s.MaxDifficulty(), Grid: s.Grid(),
		})
	}},
	{"sv2-ewma", func(s *stratum.Session) (difficulty.Policy, error) {
		return difficulty.NewEWMA(&difficulty.EWMAOptions{
			Start: s.StartDifficulty(), Min: s.MinDifficulty(), Max: s.MaxDifficulty(), Grid: s.Grid(),
		})
	}},
	{"datum", func(s *stratum.Session) (difficulty.Policy, error) {
		return difficulty.NewQuickStart(&difficulty.QuickStartOptions{
			Start: s.StartDifficulty(), Min: s.MinDifficulty(), Max: s.MaxDifficulty(),
		})
	}},
	{"fixed", func(s *stratum.Session) (difficulty.Policy, error) {
		return difficulty.Fixed(s.StartDifficulty()), nil
	}},
}

func vardiffNames() string {
	var names []string
	for _, v := range vardiffs {
		names = append(names, string(v.name))
	}
	return strings.Join(names, ", ")
}

func (v *vardiff) String() string { return string(*v) }

// Set takes true and false as well: once the flag was a switch.
func (v *vardiff) Set(s string) error {
	switch s {
	case "true":
		s = string(defaultVardiff)
	case "false":
		s = "fixed"
	}
	for _, known := range vardiffs {
		if vardiff(s) == known.name {
			*v = known.name
			return nil
		}
	}
	return fmt.Errorf("want one of %s", vardiffNames())
}

func (v *vardiff) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil // as for every other setting
	}
	if v.Set(string(bytes.Trim(b, `"`))) != nil {
		return &json.UnmarshalTypeError{Value: string(b), Type: reflect.TypeFor[vardiff]()}
	}
	return nil
}

// policy returns what makes a session's policy. Bounds that a policy refuses leave the choice to the server.
func (v vardiff) policy() func(*stratum.Session) difficulty.Policy {
	i := slices.IndexFunc(vardiffs, func(known namedPolicy) bool { return known.name == v })
	return func(s *stratum.Session) difficulty.Policy {
		p, err := vardiffs[i].make(s)
		if err != nil {
			return nil
		}
		return p
	}
}

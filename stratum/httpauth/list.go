package httpauth

import (
	"fmt"

	"github.com/poolkit/poolkit/stratum"
)

// A list is what has been learned of users.
type list struct {
	users  map[string]listed // by the name under the rules
	lastID int32             // the highest number seen
}

func newList() *list { return &list{users: make(map[string]listed)} }

// fits returns an error when with page p the list would hold more than limit users.
func (l *list) fits(p *page, rules stratum.NameRules, limit int) error {
	if len(l.users)+len(p.users) <= limit {
		return nil
	}
	fresh := make(map[string]bool)
	for _, u := range p.users {
		name := rules.User(u.name)
		if _, known := l.users[name]; !known && name != "" && u.id != 0 {
			fresh[name] = true
		}
	}
	if n := len(l.users) + len(fresh); n > limit {
		return fmt.Errorf("the list has %d users or more, and %d is the limit", n, limit)
	}
	return nil
}

// add merges page p and returns how many users changed by it, and how many entries gave way to another spelling.
func (l *list) add(p *page, rules stratum.NameRules) (changed, shadowed int) {
	for _, u := range p.users {
		name := rules.User(u.name)
		if name == "" {
			continue
		}
		old, known := l.users[name]
		switch {
		case known && old == u, !known && u.id == 0:
			continue
		case known && old.name != u.name && (u.id == 0 || old.id <= u.id):
			if old.id < u.id {
				shadowed++
			}
			continue
		case u.id == 0:
			delete(l.users, name)
		default:
			l.users[name] = u
		}
		changed++
	}
	l.lastID = max(l.lastID, p.highest)
	return changed, shadowed
}

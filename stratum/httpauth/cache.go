package httpauth

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// keep writes the cache file if the list has changed since. That it cannot is logged and nothing more: the pool runs on
// without. A list without users replaces none that has some.
func (u *Users) keep() {
	if u.opts.CacheFile == "" || !u.dirty || len(u.list.users) == 0 {
		return
	}
	err := u.writeCache()
	u.kept = time.Now()
	text := ""
	if err != nil {
		text = err.Error()
	} else {
		u.dirty = false
	}
	if err != nil && text != u.unkept {
		u.opts.Logger.Error("cannot keep the list of users for the next start", "file", u.opts.CacheFile, "error", err)
	}
	u.unkept = text
}

// writeCache writes the list in the form of an answer of the API, a user a line, to a new file that then takes the place
// of the old one.
func (u *Users) writeCache() (err error) {
	f, err := os.CreateTemp(filepath.Dir(u.opts.CacheFile), filepath.Base(u.opts.CacheFile)+".*.tmp") // for our eyes only
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	b := bufio.NewWriterSize(f, 64<<10)
	b.WriteString(`{"err_no":0,"err_msg":null,"list":"` + u.key + `","data":{`)
	users := slices.SortedFunc(maps.Values(u.list.users), func(a, b listed) int {
		return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.name, b.name))
	})
	var line []byte
	for i, user := range users {
		name, err := json.Marshal(user.name)
		if err != nil {
			return err
		}
		if line = line[:0]; i > 0 {
			line = append(line, ',')
		}
		line = append(append(line, '\n'), name...)
		b.Write(strconv.AppendInt(append(line, ':'), int64(user.id), 10))
	}
	b.WriteString("\n}}\n")
	if err := b.Flush(); err != nil { // of all the writes above
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), u.opts.CacheFile)
}

// readCache makes the list in the cache file the one that is known. The API is still asked for everything.
func (u *Users) readCache() error {
	f, err := os.Open(u.opts.CacheFile)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	p, err := decodePage(f, fi.Size(), u.opts.MaxUsers)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", u.opts.CacheFile, err)
	case p.list != u.key:
		return fmt.Errorf("%s is of another list", u.opts.CacheFile)
	}
	l := newList()
	l.add(p, u.opts.Names)
	if len(l.users) == 0 {
		return fmt.Errorf("%s has no users", u.opts.CacheFile)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.list, u.stats.FromCache = l, true
	return nil
}

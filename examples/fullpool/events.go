package main

import (
	"os"
	"sync"
)

// An appendFile is a file that is appended to, and that log rotation may move away. Its methods may be called at any
// time, by anyone.
type appendFile struct {
	name string

	mu   sync.Mutex
	file *os.File
}

func openAppend(name string) (*appendFile, error) {
	f := &appendFile{name: name}
	return f, f.Reopen()
}

// Reopen goes on with the file that has the name now. After an error it goes on with the one it has.
func (f *appendFile) Reopen() error {
	file, err := os.OpenFile(f.name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	f.mu.Lock()
	old := f.file
	f.file = file
	f.mu.Unlock()
	if old == nil {
		return nil
	}
	return old.Close()
}

// Write implements io.Writer.
func (f *appendFile) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.file.Write(b)
}

// Close closes the file.
func (f *appendFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.file.Close()
}

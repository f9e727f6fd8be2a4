package testnode

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// btcdPackage is built in the version that go.mod names.
const btcdPackage = "github.com/btcsuite/btcd"

// wipe is the line of btcd.go by which btcd throws its chain away at each start on regtest. A node whose restart is
// tested must keep it, so that line, and nothing else, is taken out of the btcd that is built here.
const wipe = "\tremoveRegressionDB(dbPath)\n"

// build returns the path of a btcd, which it makes if no test binary did before. The executable stays in the user's cache
// folder, named by all that went into it.
var build = sync.OnceValues(func() (string, error) {
	dir, err := run("go", "list", "-f", "{{.Dir}}", btcdPackage)
	if err != nil {
		return "", err
	}
	original := filepath.Join(dir, "btcd.go")
	source, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	if bytes.Count(source, []byte(wipe)) != 1 {
		return "", fmt.Errorf("%s does not hold the line %q once; see how this version treats regtest data",
			original, strings.TrimSpace(wipe))
	}
	source = bytes.Replace(source, []byte(wipe), nil, 1)

	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	// dir holds the version.
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s/%s\n%s", dir, runtime.Version(), runtime.GOOS, runtime.GOARCH, source))
	cache = filepath.Join(cache, "poolkit-testnode")
	bin := filepath.Join(cache, fmt.Sprintf("btcd-%x", sum[:8]))
	if runtime.GOOS == "windows" {
		bin += ".exe"
	}
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}

	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	// The go command runs the tests of several packages at a time, and one build is enough for all of them.
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	work, err := os.MkdirTemp(cache, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	// The go command takes no altered file of a module from its cache, but a whole module in another place.
	module := filepath.Join(work, "btcd")
	if err := os.CopyFS(module, sources{os.DirFS(dir)}); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(module, "btcd.go"), source, 0o600); err != nil {
		return "", err
	}
	main, err := run("go", "env", "GOMOD")
	if err != nil {
		return "", err
	}
	mod := filepath.Join(work, "go.mod")
	if err := copyFile(mod, main); err != nil {
		return "", err
	}
	if err := copyFile(filepath.Join(work, "go.sum"), filepath.Join(filepath.Dir(main), "go.sum")); err != nil {
		return "", err
	}
	if _, err := run("go", "mod", "edit", "-replace="+btcdPackage+"="+module, mod); err != nil {
		return "", err
	}
	made := filepath.Join(work, "made")
	if _, err := run("go", "build", "-buildvcs=false", "-modfile="+mod, "-o", made, btcdPackage); err != nil {
		return "", err
	}
	if err := os.Rename(made, bin); err != nil {
		return "", err
	}
	return bin, nil
})

// sources are the files of a module that building it needs. The folders of the module cache are not writable, and
// their copies have to be.
type sources struct{ fs.FS }

// ReadDir implements [fs.ReadDirFS].
func (s sources) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(s.FS, name)
	return slices.DeleteFunc(all, func(e fs.DirEntry) bool {
		return strings.HasSuffix(e.Name(), "_test.go") || e.IsDir() && e.Name() == "testdata"
	}), err
}

func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

// run runs a command in the folder of the test, which lies in this module, and returns the line that it prints.
func run(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

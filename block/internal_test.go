package block

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/share"
)

func FuzzDecodePending(f *testing.F) {
	p := &Pending{Solution: share.Solution{
		Chain: "btc", JobID: 1 << 60, Height: 840000, Coinbase: []byte{1, 2, 3}, WorkerID: -1, UserID: 2,
		Worker: share.Worker{User: "a", Name: "b"}, Found: time.Unix(1700000000, 5).UTC(),
	}}
	for _, block := range [][]byte{nil, append(make([]byte, 80), 1, 2)} {
		p.Block = block
		b, err := encodePending(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
		f.Add(b[1:])
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodePending(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%v does not match ErrCorrupt", err)
			}
			return
		}
		again, err := encodePending(p)
		if err != nil {
			t.Fatal(err)
		}
		q, err := decodePending(again)
		if err != nil {
			t.Fatal(err)
		}
		p.Solution.Found, q.Solution.Found = p.Solution.Found.UTC(), q.Solution.Found.UTC()
		if !reflect.DeepEqual(p, q) {
			t.Fatalf("%+v\n%+v", p, q)
		}
	})
}

// A disk that takes part of a line and then nothing more, not even a truncation.
func TestFileGoesOnAfterFailedWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "found.jsonl")
	r, err := OpenFile(path, nil)
	require.NoError(t, err)
	first, second := Found{Hash: [32]byte{1}, Height: 1}, Found{Hash: [32]byte{2}, Height: 2}
	require.NoError(t, r.Record(t.Context(), &first))
	before, err := os.ReadFile(path)
	require.NoError(t, err)

	writable := r.f
	r.f, err = os.Open(path)
	require.NoError(t, err)
	for range 2 {
		require.Error(t, r.Record(t.Context(), &second))
	}
	list, err := r.Found(t.Context(), Query{})
	require.NoError(t, err)
	require.Len(t, list, 1, "what is not on disk is not recorded")
	require.NoError(t, r.f.Close())
	_, err = writable.WriteString(`{"hash":"00000000`)
	require.NoError(t, err)

	r.f = writable
	require.NoError(t, r.Record(t.Context(), &second))
	require.NoError(t, r.Close())
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(after, before))
	require.Equal(t, 2, bytes.Count(after, []byte("\n")))
	r, err = OpenFile(path, nil)
	require.NoError(t, err)
	defer r.Close()
	list, err = r.Found(t.Context(), Query{})
	require.NoError(t, err)
	require.Equal(t, []Found{second, first}, list)
	require.Zero(t, r.Damaged())
}

func FuzzDecodeFound(f *testing.F) {
	f.Add([]byte(`{"chain":"btc","hash":"0000000301ca46ff66d0e924a497f00360bc4aa164899ed63a6d8978d323351e","puid":2,"state":"immature","outcome":"stale"}`))
	f.Add([]byte(`{"hash":"00"}`))
	f.Add([]byte(`{"hash":""}`))
	f.Add([]byte(`{"hash":`))
	f.Fuzz(func(t *testing.T, b []byte) {
		found, err := decodeFound(b)
		if err != nil {
			return
		}
		if found.State >= numStates || found.Outcome >= numOutcomes || found.Hash == (Found{}).Hash {
			t.Fatalf("%+v", found)
		}
	})
}

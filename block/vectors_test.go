package block_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/job"
)

// A solvedShare is one entry of testdata/solved-shares.json.
type solvedShare struct {
	raw      []byte
	jobID    job.ID
	workerID int64
	userID   int32
	height   int32
	header   []byte
	name     string
	coinbase []byte
	hash     string
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func parseHash(t testing.TB, s string) chainhash.Hash {
	t.Helper()
	h, err := chainhash.NewHashFromStr(s)
	require.NoError(t, err)
	return *h
}

func solvedShares(t testing.TB) []solvedShare {
	t.Helper()
	b, err := os.ReadFile("testdata/solved-shares.json")
	require.NoError(t, err)
	var list []struct {
		Value   string `json:"value_hex"`
		Decoded struct {
			JobID          job.ID `json:"jobId"`
			WorkerID       int64  `json:"workerId"`
			UserID         int32  `json:"userId"`
			Height         int32  `json:"height"`
			Header         string `json:"header"`
			WorkerFullName string `json:"workerFullName"`
			Coinbase       string `json:"coinbase"`
			BlockHash      string `json:"block_hash"`
		} `json:"decoded"`
	}
	require.NoError(t, json.Unmarshal(b, &list))
	require.Len(t, list, 2)
	var out []solvedShare
	for _, s := range list {
		d := s.Decoded
		out = append(out, solvedShare{unhex(t, s.Value), d.JobID, d.WorkerID, d.UserID, d.Height, unhex(t, d.Header),
			d.WorkerFullName, unhex(t, d.Coinbase), d.BlockHash})
	}
	return out
}

func lines(t testing.TB, name string, each func(line []byte)) {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	in := bufio.NewScanner(bytes.NewReader(b))
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		each(in.Bytes())
	}
	require.NoError(t, in.Err())
}

// capturedTemplates are the templates of testdata/rawgbt.jsonl.
func capturedTemplates(t testing.TB) []*job.Template {
	t.Helper()
	var out []*job.Template
	lines(t, "testdata/rawgbt.jsonl", func(line []byte) {
		var msg struct {
			CreatedAt int64  `json:"created_at_ts"`
			Body      []byte `json:"block_template_base64"`
			Hash      string `json:"gbthash"`
		}
		require.NoError(t, json.Unmarshal(line, &msg))
		tmpl, err := job.ParseTemplate(msg.Body, time.Unix(msg.CreatedAt, 0))
		require.NoError(t, err)
		require.Equal(t, msg.Hash, tmpl.ID.String())
		out = append(out, tmpl)
	})
	require.NotEmpty(t, out)
	return out
}

// capturedJobs are the jobs of testdata/stratumjobs.jsonl, with the fields that matter here.
func capturedJobs(t testing.TB) []*job.Job {
	t.Helper()
	var out []*job.Job
	lines(t, "testdata/stratumjobs.jsonl", func(line []byte) {
		var msg struct {
			JobID     job.ID `json:"jobId"`
			GBTHash   string `json:"gbtHash"`
			PrevHash  string `json:"prevHash"`
			Height    int32  `json:"height"`
			Coinbase1 string `json:"coinbase1"`
			Coinbase2 string `json:"coinbase2"`
			Version   int32  `json:"nVersion"`
			Bits      uint32 `json:"nBits"`
			Time      uint32 `json:"nTime"`
			Value     int64  `json:"coinbaseValue"`
		}
		require.NoError(t, json.Unmarshal(line, &msg))
		j, err := job.New(job.Job{
			ID: msg.JobID, TemplateID: parseHash(t, msg.GBTHash), PrevHash: parseHash(t, msg.PrevHash),
			Height: msg.Height, Coinb1: unhex(t, msg.Coinbase1), Coinb2: unhex(t, msg.Coinbase2), Version: msg.Version,
			Bits: msg.Bits, Time: msg.Time, CoinbaseValue: msg.Value,
		})
		require.NoError(t, err)
		out = append(out, j)
	})
	require.NotEmpty(t, out)
	return out
}

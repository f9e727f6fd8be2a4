package noderpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func FuzzDecodeReply(f *testing.F) {
	for _, seed := range []string{
		`{"result":{"height":840000},"error":null,"id":"1"}`,
		`{"result":null,"error":null,"id":"1"}`,
		`{"jsonrpc":"1.0","result":null,"error":{"code":-5,"message":"Block not found"},"id":"1"}`,
		`{"result":null,"error":{"code":-22,"message":"Block decode failed"}}`,
		`{"error":"text"}`, `{"error":{"code":1e99}}`, `{"error":[]}`, `{"id":1}`, `[]`, `null`, ``, ` `, `<html>`, `{"result":`,
		"{\"error\":{\"message\":\"\x1b[2J\xff\"}}",
	} {
		f.Add([]byte(seed), 200)
		f.Add([]byte(seed), 500)
	}
	f.Fuzz(func(t *testing.T, body []byte, status int) {
		before := bytes.Clone(body)
		result, err := decodeReply(body, status)
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
		if err == nil {
			if !success(status) {
				t.Fatalf("status %d passes", status)
			}
			if len(result) > 0 && !json.Valid(result) {
				t.Fatalf("result %q is no JSON", result)
			}
			return
		}
		var rpc *RPCError
		var web *HTTPError
		var bad *ReplyError
		if !errors.As(err, &rpc) && !errors.As(err, &web) && !errors.As(err, &bad) {
			t.Fatalf("untyped error %v", err)
		}
		text := err.Error()
		if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) || len(text) > 2000 {
			t.Fatalf("error cannot be printed: %q", text)
		}
	})
}

func BenchmarkDecodeReply(b *testing.B) {
	body := []byte(`{"result":{"chain":"main","blocks":840000,"headers":840000,"initialblockdownload":false},"error":null,"id":"1"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeReply(body, 200); err != nil {
			b.Fatal(err)
		}
	}
}

package job

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/wire/v2"
	"github.com/stretchr/testify/require"
)

// seeds are replies to start fuzzing from: real ones, and some that differ in what the scanner has to notice.
func seeds(t testing.TB) [][]byte {
	t.Helper()
	files, err := filepath.Glob("jobtest/testdata/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	var all [][]byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		all = append(all, b)
	}
	const head = `{"result":{"previousblockhash":"0000000000000000000172014ba58d66455762add0512355ad651207918494ab",` +
		`"height":840000,"coinbasevalue":312500000,"bits":"17034219","curtime":1713597568,"version":536870912,`
	const legacy = `{"data":"0100000001982051fd1e4ba744bbbe680e1fee14677ba1a3c3540bf7b1cdb606e857233e0e00000000494830450221` +
		`008b9d1dc26ba6a9cb62127b02742fa9d754cd3bebf337f7a55d114c8e5cdd30be022040529b194ba3f9281a99f2b1c0a19c0489bc22ede944ccf4ec` +
		`bab4cc618ef3ed01ffffffff0100f2052a010000000151000000` + `00","fee":5,"depends":[],"sigops":1,"weight":400}`
	const segwit = `{"data":"02000000000101` + `0000000000000000000000000000000000000000000000000000000000000001` +
		`0000000000fdffffff` + `01e8030000000000000151` + `0101ff` + `00000000","depends":[1]}`
	// A node that knows no witnesses calls the id "hash".
	old := Transaction{}
	old.Data, _ = hex.DecodeString(segwit[len(`{"data":"`):strings.Index(segwit, `","depends"`)])
	_, err = old.hash(nil)
	require.NoError(t, err)
	require.NotEqual(t, old.TxID, old.WTxID)
	for _, tail := range []string{
		fmt.Sprintf(`"transactions":[{"data":"%x","hash":"%v"}]}}`, old.Data, old.TxID),
		fmt.Sprintf(`"transactions":[{"data":"%x","hash":"%v"}]}}`, old.Data, old.WTxID),
		fmt.Sprintf(`"transactions":[{"data":"%x","hash":"%v","txid":"%v"}]}}`, old.Data, old.TxID, old.TxID),
		`"x":"\\","transactions":[` + legacy + `]}}`,
		strings.Replace(`"transactions":[`+legacy+`]}}`, `"fee":5`, `"fee":05`, 1),
		strings.Replace(`"transactions":[`+legacy+`]}}`, `"fee":5`, `"fee":-0`, 1),
		strings.Replace(`"transactions":[`+legacy+`]}}`, `"fee":5`, `"fee":5e3`, 1),
		strings.Replace(`"transactions":[`+legacy+`]}}`, `"fee":5`, `"fee":12345678901234567890`, 1),
		strings.Replace(`"transactions":[`+legacy+`]}}`, `"fee":5`, `"required":true`, 1),
		strings.Replace(`"transactions":[`+legacy+`]}}`, `"fee":5`, `"required":1`, 1),
		strings.Replace(`"transactions":[`+legacy+`]}}`, `"fee":5`, `"fee":5,"fee":6`, 1),
		strings.Replace(`"transactions":[`+legacy+`]}}`, `"fee":5`, `"fee":null`, 1),
		`"transactions":[]}}`,
		`"transactions":[` + legacy + `]},"error":null}`,
		`"transactions":[` + legacy + `,` + segwit + `]}}` + "\n",
		` "transactions" : [ ` + legacy + ` , ` + segwit + ` ] } , "id" : "\"" }`,
		`"transactions":[` + legacy + `],"transactions":[]}}`,
		`"transactions":[` + legacy + `],"Transactions":[]}}`,
		`"transactions":[` + legacy + `],"transaction\u0073":[]}}`,
		`"transactions":[` + legacy + `]},"result":null}`,
		`"transactions":[` + legacy + `]},"Result":{}}`,
		`"x":{"transactions":[` + legacy + `]}}}`,
		`"transactions":[` + legacy + `]},"transactions":[]}`,
		`"transactions":[{"Data":"00"}]}}`,
		`"transactions":null}}`,
		`"transactions":[null]}}`,
		`"x":"\\\"]}","transactions":[` + legacy + `]}}`,
	} {
		all = append(all, []byte(head+tail))
	}
	return all
}

// slowParse is ParseTemplate without the scanner.
func slowParse(body []byte) (*Template, error) {
	t, err := decodeTemplate(body, nil)
	if err == nil {
		t.ID = doubleSHA256(body)
	}
	return t, err
}

// checkParse holds ParseTemplate against encoding/json, and its transactions against btcd.
func checkParse(t *testing.T, body []byte) {
	before := bytes.Clone(body)
	got, err := ParseTemplate(body, time.Time{})
	require.Equal(t, before, body, "ParseTemplate changed its input")
	want, wantErr := slowParse(body)
	if wantErr != nil {
		require.EqualError(t, err, wantErr.Error())
		require.Nil(t, got)
		return
	}
	require.NoError(t, err)
	require.Equal(t, want, got)
	for i := range got.Transactions {
		tx := &got.Transactions[i]
		msg := new(wire.MsgTx)
		// btcd bounds what it takes to what fits into a message, so it may refuse more than stripWitness does.
		if r := bytes.NewReader(tx.Data); msg.Deserialize(r) == nil && r.Len() == 0 {
			require.Equal(t, msg.TxHash(), tx.TxID)
			require.Equal(t, msg.WitnessHash(), tx.WTxID)
		}
	}
}

func TestScannerAgreesWithEncodingJSON(t *testing.T) {
	fast := 0
	for _, body := range seeds(t) {
		checkParse(t, body)
		if _, _, ok := scanTransactions(body); ok {
			fast++
		}
	}
	require.Equal(t, 13, fast, "the scanner gives up on replies as nodes write them")
}

func TestStripWitnessRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		data []byte
		want error
	}{
		{"nothing", nil, errShortTx},
		{"a version alone", []byte{2, 0, 0, 0}, errShortTx},
		{"an unknown flag", []byte{2, 0, 0, 0, 0, 2, 1, 0, 0}, errFlagTx},
		{"no outputs", append(append([]byte{2, 0, 0, 0, 1}, make([]byte, 36)...), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), errNoInput},
		{"a count of 2^64 inputs", []byte{2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, errShortTx},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := stripWitness(tt.data, nil)
			require.ErrorIs(t, err, tt.want)
		})
	}
}

func FuzzParseTemplate(f *testing.F) {
	for _, body := range seeds(f) {
		f.Add(body)
	}
	f.Fuzz(checkParse)
}

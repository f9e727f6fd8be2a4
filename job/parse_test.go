package job_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/job/jobtest"
)

// The ID of a template covers every byte of the reply, the newline at its end too.
func TestTemplateIDCoversTheWholeReply(t *testing.T) {
	reply := `{"result":{"previousblockhash":"0000000000000000000172014ba58d66455762add0512355ad651207918494ab",` +
		`"height":840000,"coinbasevalue":312500000,"bits":"17034219","mintime":1713590000,"curtime":1713597568,` +
		`"version":536870912,"transactions":[]},"error":null,"id":"1"}`
	received := time.Unix(1713597570, 5)
	tmpl, err := job.ParseTemplate([]byte(reply+"\n"), received)
	require.NoError(t, err)
	require.Equal(t, "fe6bec6fda53856ef32471502803faa1f697bb1093ade18fa7c45d39cec97bce", tmpl.ID.String())
	require.Equal(t, received, tmpl.Received)
	require.EqualValues(t, 840000, tmpl.Height)
	require.EqualValues(t, 312500000, tmpl.CoinbaseValue)
	require.EqualValues(t, 1713590000, tmpl.MinTime)
	require.EqualValues(t, 1713597568, tmpl.CurTime)
	require.EqualValues(t, 0x20000000, tmpl.Version)
	require.EqualValues(t, 0x17034219, tmpl.Bits)
	require.True(t, tmpl.Empty())
	require.Empty(t, tmpl.WitnessCommitment, "nothing to commit to, and the node asks for nothing")

	tmpl, err = job.ParseTemplate([]byte(reply), received)
	require.NoError(t, err)
	require.Equal(t, "95d9c1318643586db55714e0999159711085c0dd6ac64871b8d5f4be2549b800", tmpl.ID.String())
}

func TestCapturedReply(t *testing.T) {
	tmpl := jobtest.Template(t, "regtest-102")
	require.Equal(t, &job.Template{
		ID:                displayHash(t, "44d3d7058708265832677da36bd0d9a71d4d1b6bac8f2a5cc6e6f7047bf53059"),
		Received:          time.Unix(1795227542, 0),
		Source:            "jobtest",
		PrevHash:          displayHash(t, "31abe8ae7d3673b156b0ba25ddffd98a1f54463b72bce3ff58ed6a3b441abfb3"),
		Height:            102,
		Version:           0x20000000,
		Bits:              0x207fffff,
		Target:            [4]uint64{3: 0x7fffff0000000000},
		CurTime:           1795227542,
		MinTime:           1795225866,
		CoinbaseValue:     5000000000,
		Transactions:      []job.Transaction{},
		WitnessCommitment: unhex(t, "6a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf9"),
		Rules:             []string{"csv", "!segwit", "taproot"},
		VBAvailable:       map[string]int{},
		Capabilities:      []string{"proposal"},
		Mutable:           []string{"time", "transactions", "prevblock"},
		LongPollID:        "31abe8ae7d3673b156b0ba25ddffd98a1f54463b72bce3ff58ed6a3b441abfb3102",
		SubmitOld:         true,
		NonceRange:        [2]uint32{0, 0xffffffff},
		SigOpLimit:        80000,
		SizeLimit:         4000000,
		WeightLimit:       4000000,
	}, tmpl)
	require.Equal(t, tmpl.WitnessCommitment, job.WitnessCommitment(nil), "what Bitcoin Core commits to in an empty block")
}

// object is a reply's result, to be changed and written again.
type object = map[string]any

// edited returns the reply of seven transactions after edit has had its way with the result.
func edited(t testing.TB, edit func(result object)) []byte {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(jobtest.Reply(t, "mainnet-small")))
	dec.UseNumber()
	reply := object{}
	require.NoError(t, dec.Decode(&reply))
	edit(reply["result"].(object))
	body, err := json.Marshal(reply)
	require.NoError(t, err)
	return body
}

func transaction(result object, i int) object { return result["transactions"].([]any)[i].(object) }

func set(field string, value any) func(object) {
	return func(result object) { result[field] = value }
}

func without(fields ...string) func(object) {
	return func(result object) {
		for _, f := range fields {
			delete(result, f)
		}
	}
}

func setTx(i int, field string, value any) func(object) {
	return func(result object) { transaction(result, i)[field] = value }
}

func TestFieldsThatMakeNoSense(t *testing.T) {
	for _, tt := range []struct {
		name  string
		edit  func(object)
		field string
	}{
		{"no previous block", without("previousblockhash"), "previousblockhash"},
		{"no height", without("height"), "height"},
		{"no bits", without("bits"), "bits"},
		{"no time", without("curtime"), "curtime"},
		{"no version", without("version"), "version"},
		{"no transactions", without("transactions"), "transactions"},
		{"transactions are null", set("transactions", nil), "transactions"},
		{"no value", without("coinbasevalue"), "coinbasevalue"},
		{"a short previous block", set("previousblockhash", "00ab"), "previousblockhash"},
		{"a previous block that is not hexadecimal", set("previousblockhash", strings.Repeat("zz", 32)), "previousblockhash"},
		{"a negative height", set("height", -1), "height"},
		{"a height that overflows", set("height", 1<<31-1), "height"},
		{"bits of seven digits", set("bits", "7034219"), "bits"},
		{"bits that are not hexadecimal", set("bits", "1703421g"), "bits"},
		{"negative bits", set("bits", "1d80ffff"), "bits"},
		{"bits above 256 bits", set("bits", "ff7fffff"), "bits"},
		{"zero bits", set("bits", "00000000"), "bits"},
		{"a target that is not the one of bits", set("target", strings.Repeat("0", 24)+strings.Repeat("f", 40)), "target"},
		{"a target of 63 digits", set("target", strings.Repeat("0", 63)), "target"},
		{"a negative time", set("curtime", -1), "curtime"},
		{"a time after 2106", set("curtime", 1<<32), "curtime"},
		{"a negative mintime", set("mintime", -1), "mintime"},
		{"mintime after curtime", set("mintime", 1813675001), "mintime"},
		{"a maxtime after 2106", set("maxtime", 1<<32), "maxtime"},
		{"maxtime before mintime", set("maxtime", 1613675001), "maxtime"},
		{"a short nonce range", set("noncerange", "00000000ffff"), "noncerange"},
		{"a nonce range that is empty", set("noncerange", "ffffffff00000000"), "noncerange"},
		{"a nonce range that is not hexadecimal", set("noncerange", "0000000x00000000"), "noncerange"},
		{"negative expires", set("expires", -1), "expires"},
		{"expires after 68 years", set("expires", 1<<31), "expires"},
		{"a negative sigop limit", set("sigoplimit", -1), "sigoplimit"},
		{"a negative size limit", set("sizelimit", -1), "sizelimit"},
		{"a negative weight limit", set("weightlimit", -1), "weightlimit"},
		{"a signet challenge that is not hexadecimal", set("signet_challenge", "5z"), "signet_challenge"},
		{"coinbaseaux that is not hexadecimal", set("coinbaseaux", object{"flags": "q"}), "coinbaseaux.flags"},
		{"a negative value", set("coinbasevalue", -1), "coinbasevalue"},
		{"more money than there is", set("coinbasevalue", 2100000000000001), "coinbasevalue"},
		{"a commitment of another kind", set("default_witness_commitment", "6a24aa21a9ee"+strings.Repeat("00", 32)),
			"default_witness_commitment"},
		{"a short commitment", set("default_witness_commitment", "6a24aa21a9ed00"), "default_witness_commitment"},
		{"a commitment that is not hexadecimal", set("default_witness_commitment", "6a24aa21a9edxx"),
			"default_witness_commitment"},
		{"a transaction without data", setTx(3, "data", ""), "transactions[3].data"},
		{"a transaction that ends early", func(r object) {
			data := transaction(r, 2)["data"].(string)
			transaction(r, 2)["data"] = data[:len(data)-2]
		}, "transactions[2].data"},
		{"bytes after a transaction", func(r object) {
			transaction(r, 2)["data"] = transaction(r, 2)["data"].(string) + "00"
		}, "transactions[2].data"},
		{"a transaction without inputs", setTx(0, "data", "02000000"+"00"+"00"+"00000000"), "transactions[0].data"},
		{"a transaction with a million inputs and no bytes", setTx(0, "data", "02000000fe40420f00"), "transactions[0].data"},
		{"an input script beyond the end", setTx(0, "data", "0200000001"+strings.Repeat("00", 36)+"ffffffffffffffffff00"),
			"transactions[0].data"},
		{"a txid of another transaction", func(r object) {
			transaction(r, 1)["txid"] = transaction(r, 0)["txid"]
		}, "transactions[1].txid"},
		{"a hash of another transaction", func(r object) {
			transaction(r, 1)["hash"] = transaction(r, 0)["hash"]
		}, "transactions[1].hash"},
		{"a transaction that depends on itself", setTx(4, "depends", []int{5}), "transactions[4].depends"},
		{"a transaction that depends on number 0", setTx(4, "depends", []int{0}), "transactions[4].depends"},
		{"a coinbasetxn instead of a value", func(r object) {
			delete(r, "coinbasevalue")
			r["coinbasetxn"] = object{"data": transaction(r, 0)["data"]}
		}, "coinbasevalue"},
		{"a coinbasetxn that is no transaction", set("coinbasetxn", object{"data": "00"}), "coinbasetxn.data"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tmpl, err := job.ParseTemplate(edited(t, tt.edit), time.Now())
			var field *job.FieldError
			require.ErrorAs(t, err, &field)
			require.Equal(t, tt.field, field.Field)
			require.NotEmpty(t, field.Reason)
			require.ErrorContains(t, err, "job: template: "+tt.field+": ")
			require.Nil(t, tmpl)
		})
	}
}

func TestRules(t *testing.T) {
	for _, tt := range []struct {
		name    string
		rules   []string
		unknown string
	}{
		{"none", []string{}, ""},
		{"of today", []string{"csv", "!segwit", "taproot"}, ""},
		{"of signet", []string{"csv", "!segwit", "!signet", "taproot"}, ""},
		{"one to come that may be ignored", []string{"!segwit", "covenants"}, ""},
		{"one to come that is mandatory", []string{"!segwit", "!covenants"}, "covenants"},
		{"a mark alone", []string{"!"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tmpl, err := job.ParseTemplate(edited(t, set("rules", tt.rules)), time.Now())
			if tt.unknown == "" && tt.name != "a mark alone" {
				require.NoError(t, err)
				require.Equal(t, tt.rules, tmpl.Rules)
				return
			}
			require.ErrorIs(t, err, job.ErrUnknownRule)
			var unknown *job.UnknownRuleError
			require.ErrorAs(t, err, &unknown)
			require.Equal(t, tt.unknown, unknown.Rule)
		})
	}

	// The rules decide whether the rest can be understood, so they are named before anything else that is wrong.
	_, err := job.ParseTemplate(edited(t, func(r object) { r["rules"] = []string{"!new"}; delete(r, "bits") }), time.Now())
	require.ErrorIs(t, err, job.ErrUnknownRule)
}

func TestOptionalFields(t *testing.T) {
	tmpl, err := job.ParseTemplate(edited(t, func(r object) {
		r["coinbaseaux"] = object{"flags": "062f503253482f", "none": ""}
		r["submitold"] = false
		r["workid"] = "w1"
		r["expires"] = 120
		r["maxtime"] = 1813675001
		r["longpolluri"] = "/poll"
		r["vbavailable"] = object{"testdummy": 28}
		r["vbrequired"] = 1 << 28
		r["signet_challenge"] = "5121"
		r["noncerange"] = "0000000100000002"
		r["coinbasetxn"] = object{"data": transaction(r, 0)["data"]}
		delete(r, "mintime")
		delete(r, "target")
		for _, f := range []string{"fee", "sigops", "weight"} {
			delete(transaction(r, 1), f)
		}
		transaction(r, 2)["required"] = true
	}), time.Now())
	require.NoError(t, err)
	require.Equal(t, map[string][]byte{"flags": []byte("\x06/P2SH/"), "none": {}}, tmpl.CoinbaseAux)
	require.False(t, tmpl.SubmitOld)
	require.Equal(t, "w1", tmpl.WorkID)
	require.Equal(t, 2*time.Minute, tmpl.Expires)
	require.EqualValues(t, 1813675001, tmpl.MaxTime)
	require.Equal(t, "/poll", tmpl.LongPollURI)
	require.Equal(t, map[string]int{"testdummy": 28}, tmpl.VBAvailable)
	require.EqualValues(t, 1<<28, tmpl.VBRequired)
	require.Equal(t, []byte{0x51, 0x21}, tmpl.SignetChallenge)
	require.Equal(t, [2]uint32{1, 2}, tmpl.NonceRange)
	require.Equal(t, tmpl.Transactions[0].TxID, tmpl.CoinbaseTxn.TxID)
	require.Equal(t, tmpl.CurTime, tmpl.MinTime, "without a mintime the header time may not go back")
	require.EqualValues(t, -1, tmpl.Transactions[1].Fee)
	require.EqualValues(t, -1, tmpl.Transactions[1].SigOps)
	require.Zero(t, tmpl.Transactions[1].Weight)
	require.Positive(t, tmpl.Transactions[0].Fee)
	require.Positive(t, tmpl.Transactions[0].Weight)
	require.True(t, tmpl.Transactions[2].Required)
	require.False(t, tmpl.Transactions[1].Required)
}

// The commitment of a template is what the node says; without it, it is what the node would have said.
func TestWitnessCommitment(t *testing.T) {
	told := jobtest.Template(t, "mainnet-small")
	witnesses := 0
	for _, tx := range told.Transactions {
		if tx.TxID != tx.WTxID {
			witnesses++
		}
	}
	require.Positive(t, witnesses)
	require.Equal(t, told.WitnessCommitment, job.WitnessCommitment(told.Transactions))

	computed, err := job.ParseTemplate(edited(t, without("default_witness_commitment")), time.Now())
	require.NoError(t, err)
	require.Equal(t, told.WitnessCommitment, computed.WitnessCommitment)

	legacy, err := job.ParseTemplate(edited(t, func(r object) {
		delete(r, "default_witness_commitment")
		var kept []any
		for i, tx := range told.Transactions {
			if tx.TxID == tx.WTxID {
				kept = append(kept, transaction(r, i))
				delete(transaction(r, i), "depends")
			}
		}
		r["transactions"] = kept
	}), time.Now())
	require.NoError(t, err)
	require.NotEmpty(t, legacy.Transactions)
	require.Empty(t, legacy.WitnessCommitment, "no witness, no commitment")
}

// Nodes from before segregated witness call the id "hash".
func TestHashWithoutTxID(t *testing.T) {
	told := jobtest.Template(t, "mainnet-small")
	tmpl, err := job.ParseTemplate(edited(t, func(r object) {
		for i := range told.Transactions {
			transaction(r, i)["hash"] = transaction(r, i)["txid"]
			delete(transaction(r, i), "txid")
		}
	}), time.Now())
	require.NoError(t, err)
	require.Equal(t, told.Transactions, tmpl.Transactions)
}

func TestResultAlone(t *testing.T) {
	var reply struct{ Result json.RawMessage }
	require.NoError(t, json.Unmarshal(jobtest.Reply(t, "mainnet-small"), &reply))
	alone, err := job.ParseTemplate(reply.Result, time.Time{})
	require.NoError(t, err)
	whole := jobtest.Template(t, "mainnet-small")
	whole.ID, whole.Received, whole.Source = alone.ID, time.Time{}, ""
	require.Equal(t, whole, alone)
}

func TestErrorReplies(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		want       *job.RPCError
	}{
		{"a node that is still loading", `{"result":null,"error":{"code":-10,` +
			`"message":"Bitcoin Core is in initial sync and waiting for blocks..."},"id":"1"}`,
			&job.RPCError{Code: -10, Message: "Bitcoin Core is in initial sync and waiting for blocks..."}},
		{"JSON-RPC 2.0", `{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":"1"}`,
			&job.RPCError{Code: -32601, Message: "Method not found"}},
		{"an error that is a string", `{"result":null,"error":"busy","id":1}`, &job.RPCError{Message: `"busy"`}},
		{"an error next to a result", `{"result":{"transactions":[]},"error":{"code":1,"message":"half"}}`,
			&job.RPCError{Code: 1, Message: "half"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := job.ParseTemplate([]byte(tt.body), time.Now())
			var rpc *job.RPCError
			require.ErrorAs(t, err, &rpc)
			require.Equal(t, tt.want, rpc)
			require.ErrorContains(t, err, fmt.Sprint(tt.want.Code))
		})
	}
}

func TestRepliesThatAreNoTemplate(t *testing.T) {
	good := string(jobtest.Reply(t, "mainnet-small"))
	for _, tt := range []struct{ name, body, want string }{
		{"nothing", "", "not a JSON object"},
		{"white space", " \n", "not a JSON object"},
		{"HTML", "<html><head><title>502 Bad Gateway</title></head></html>", `"<html><head><title>502 Bad Gateway`},
		{"text of an HTTP server", "Work queue depth exceeded", `begins "Work queue depth exceeded"`},
		{"an array", "[]", "not a JSON object"},
		{"null", "null", "not a JSON object"},
		{"a null result", `{"result":null,"error":null,"id":"1"}`, "previousblockhash: missing"},
		{"an empty object", `{}`, "previousblockhash: missing"},
		{"a result that is a string", `{"result":"x"}`, "cannot unmarshal string"},
		{"a second object", good + "{}", "data after the reply"},
		{"a stray brace", good + "}", "data after the reply"},
		{"the first half", good[:len(good)/2], "unexpected EOF"},
		{"all but the last brace", strings.TrimSpace(good)[:len(good)-2], "unexpected EOF"},
		{"a comma too many", strings.Replace(good, `}],"coinbaseaux"`, `},],"coinbaseaux"`, 1), "invalid character"},
		{"data that is a number", strings.Replace(good, `{"data":"`, `{"data":1,"x":"`, 1), "not a hexadecimal string"},
		{"data with an odd number of digits", strings.Replace(good, `{"data":"`, `{"data":"0`, 1), "odd length"},
		{"an escape inside data", strings.Replace(good, `{"data":"02`, `{"data":"\u0030\u0032`, 1), "invalid byte"},
		{"a height in quotes", strings.Replace(good, `"height":840123`, `"height":"840123"`, 1), "height"},
		{"a fee with a fraction", strings.Replace(good, `"fee":`, `"fee":0.5,"fees":`, 1), "fee"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tmpl, err := job.ParseTemplate([]byte(tt.body), time.Now())
			require.ErrorContains(t, err, tt.want)
			require.True(t, strings.HasPrefix(err.Error(), "job: "), err.Error())
			require.Less(t, len(err.Error()), 300, "an error is no place for a whole reply")
			require.Nil(t, tmpl)
		})
	}
}

func ExampleParseTemplate() {
	reply := []byte(`{"result": {
		"version": 536870912, "height": 840000, "bits": "17034219", "curtime": 1713597568,
		"previousblockhash": "0000000000000000000172014ba58d66455762add0512355ad651207918494ab",
		"coinbasevalue": 312500000, "transactions": [], "rules": ["csv", "!segwit", "!covenants"]
	}}`)
	_, err := job.ParseTemplate(reply, time.Now())
	fmt.Println(err)

	t, err := job.ParseTemplate(bytes.Replace(reply, []byte("!covenants"), []byte("taproot"), 1), time.Now())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("height %d on %v, network difficulty %.0f\n", t.Height, t.PrevHash, float64(t.Target.Difficulty()))
	// Output:
	// job: template: rules: unknown mandatory rule "covenants"
	// height 840000 on 0000000000000000000172014ba58d66455762add0512355ad651207918494ab, network difficulty 86388558925171
}

func BenchmarkParseTemplate(b *testing.B) {
	for _, bench := range []struct {
		name string
		body []byte
	}{
		{"mainnet", jobtest.Reply(b, "mainnet")},
		{"mainnet-empty", jobtest.Reply(b, "mainnet-empty")},
		{"real block", replyFor(b, realBlock(b), "")},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetBytes(int64(len(bench.body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := job.ParseTemplate(bench.body, time.Time{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestParseTemplateTakesBothCommitments(t *testing.T) {
	// btcd names the 32 bytes that are committed to, where BIP 145 wants the whole output script.
	const commitmentScript = "6a24aa21a9ed"
	commitment := strings.Repeat("ab", 32)
	reply := func(value string) []byte {
		return []byte(`{"result":{"version":1,"previousblockhash":"` + strings.Repeat("00", 32) + `","transactions":[],` +
			`"coinbasevalue":1,"curtime":2,"bits":"207fffff","height":3,"default_witness_commitment": "` + value + `"},"error":null}`)
	}
	for _, tt := range []struct {
		name, value, want string // want is empty for an error
	}{
		{"output script of bitcoind", commitmentScript + commitment, commitmentScript + commitment},
		{"bare hash of btcd", commitment, commitmentScript + commitment},
		{"too short", commitment[2:], ""},
		{"another script", "76a914" + commitment, ""},
		{"no hexadecimal", strings.Repeat("xy", 32), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := reply(tt.value)
			tpl, err := job.ParseTemplate(body, time.Now())
			if tt.want == "" {
				var field *job.FieldError
				require.True(t, errors.As(err, &field), "%v", err)
				require.Equal(t, "default_witness_commitment", field.Field)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, hex.EncodeToString(tpl.WitnessCommitment))
			require.Equal(t, chainhash.DoubleHashH(body), tpl.ID)
		})
	}
}

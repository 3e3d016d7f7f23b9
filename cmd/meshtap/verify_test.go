// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/meshtap/meshtap/eventtap/event"
)

// TestVerifyForeignBus: --bus of events verify is any bus that a capture may be.
func TestVerifyForeignBus(t *testing.T) {
	t.Parallel()
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "events"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	c, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...), kgo.DefaultProduceTopic("events"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	for _, seq := range []uint64{1, 2, 4} { // one is missing
		var e event.Event
		e.Reset(event.Request)
		e.ID, e.Source, e.BootID, e.Sequence, e.StreamSeq = fmt.Appendf(nil, "b-%d", seq), []byte("/p"), []byte("b"), seq, seq
		r := &kgo.Record{Value: e.AppendJSON(nil), Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte(event.TypeJSON)}}}
		if err := c.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	out, errOut, code := execute(t.Context(), "events", "verify", "--bus", "kafka://"+k.ListenAddrs()[0], "--topic", "events", "-o", "json")
	var got struct {
		OK    bool
		Boots []struct{ Received, Missing int }
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 1 || got.OK || len(got.Boots) != 1 || got.Boots[0].Received != 3 || got.Boots[0].Missing != 1 {
		t.Errorf("%v, ended with %d: %s%s", err, code, out, errOut)
	}
	if _, errOut, code := execute(t.Context(), "events", "verify", "--bus", "pigeon://here"); code != 2 {
		t.Errorf("ended with %d: %s", code, errOut)
	}
}

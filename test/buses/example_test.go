// SPDX-License-Identifier: Apache-2.0

//go:build buses

package buses

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/test/conformance/sink"
	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

func TestMain(m *testing.M) { os.Exit(sidecar.Main(m)) }

// rabbitExample serves configs/tap-rabbitmq.yaml with the built binary, and reads what the queue holds.
func rabbitExample(t *testing.T, r *rabbit) {
	rig := examples.NewRig(t)
	rig.RabbitMQ = r.addr
	const field = "        exchange: "
	login := "        user: tap\n        password_file: " + sink.WriteFile(t, "right\n", 0o600) + "\n"
	rig.Start(strings.Replace(rig.Read("tap-rabbitmq.yaml"), field, login+field, 1), "")
	want := rig.Delivered("rabbitmq")
	var got []string
	for _, b := range events(t, r.take(t, "meshtap.events")) {
		if e := sink.Decode(t, b); e.Kind == event.Request {
			got = append(got, string(e.Texts[event.Method]))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the queue tells of %q, want %q", got, want)
	}
}

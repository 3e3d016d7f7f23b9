// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

// StartKafka runs a fake Kafka broker in this process until the test ends, and returns where it is.
func StartKafka(tb testing.TB) string {
	tb.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c.ListenAddrs()[0]
}

// SPDX-License-Identifier: Apache-2.0

//go:build http2

package http2_test

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// attacks are what one hostile connection does until it is cut off.
var attacks = []struct {
	name string
	// next appends the n-th step of the attack.
	next func(a *attacker, n uint32)
	// streams is how many streams the proxy looks at before the cut, at most, beside those that it takes as time goes by; 0
	// asserts nothing.
	streams uint32
	counter string // what the proxy counts the cut under
}{
	{"rapid reset by the client (F43)", func(a *attacker, n uint32) {
		a.get(2*n+1, true)
		a.must(a.fr.WriteRSTStream(2*n+1, http2.ErrCodeCancel))
	}, 1100, "http2.rx_reset"},
	{"resets of the server's making (F43)", func(a *attacker, n uint32) {
		a.get(2*n+1, false)
		a.must(a.fr.WriteRawFrame(http2.FrameWindowUpdate, 0, 2*n+1, make([]byte, 4)))
	}, 1500, "http2.tx_reset"},
	{"malformed requests (F43)", func(a *attacker, n uint32) {
		a.must(a.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*n + 1, BlockFragment: []byte{0x82}, EndHeaders: true, EndStream: true}))
	}, 1100, "http2.rx_messaging_error"},
	{"CONTINUATION without an end (F44)", func(a *attacker, n uint32) {
		if n == 0 {
			a.must(a.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}}))
		}
		a.must(a.fr.WriteContinuation(1, false, bytes.Repeat([]byte{0x82}, 16<<10)))
	}, 0, "http2.goaway_sent"},
	{"PING", func(a *attacker, _ uint32) { a.must(a.fr.WritePing(false, [8]byte{})) }, 0, "http2.goaway_sent"},
	{"SETTINGS", func(a *attacker, _ uint32) { a.must(a.fr.WriteSettings()) }, 0, "http2.goaway_sent"},
	{"empty DATA", func(a *attacker, n uint32) {
		if n == 0 {
			a.get(1, false)
		}
		a.must(a.fr.WriteData(1, false, nil))
	}, 1, "http2.inbound_empty_frames_flood"},
}

// resets is how many streams may be reset in a second for as long as a connection likes.
const resets = 200

// attacker is a hostile connection.
type attacker struct {
	t    testing.TB
	conn net.Conn
	out  *bufio.Writer
	fr   *http2.Framer
	enc  *hpack.Encoder
	head bytes.Buffer
	end  error // of writing
}

func newAttacker(t testing.TB, port string, settings ...http2.Setting) *attacker {
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(sidecar.Hang))
	a := &attacker{t: t, conn: conn, out: bufio.NewWriterSize(conn, 16<<10)}
	a.fr, a.enc = http2.NewFramer(a.out, conn), hpack.NewEncoder(&a.head)
	_, err = io.WriteString(a.out, http2.ClientPreface)
	a.must(err)
	a.must(a.fr.WriteSettings(settings...))
	return a
}

// must notes the first error, which is the end of the attack.
func (a *attacker) must(err error) {
	if a.end == nil {
		a.end = err
	}
}

// get opens a stream, with further fields.
func (a *attacker) get(id uint32, end bool, more ...hpack.HeaderField) {
	a.head.Reset()
	for _, f := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "a"}, {Name: ":path", Value: "/"},
	}, more...) {
		_ = a.enc.WriteField(f)
	}
	a.must(a.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.head.Bytes(), EndHeaders: true, EndStream: end}))
}

// goAway reads until the proxy ends the connection, or says that it will: an attacker does not wait for the end, for which
// Envoy takes a second. It returns the last stream that the proxy has looked at.
func (a *attacker) goAway() (last uint32, code http2.ErrCode, said bool) {
	for {
		f, err := a.fr.ReadFrame()
		if err != nil {
			return 0, 0, false
		}
		if g, is := f.(*http2.GoAwayFrame); is {
			return g.LastStreamID, g.ErrCode, true
		}
	}
}

var (
	attackRounds = flag.Int("attack.rounds", 1, "how often each attack is measured; the figures are lower quartiles: other jobs on the machine only ever add")
	attackFor    = flag.Duration("attack.for", time.Second, "how long each measurement takes")
	attackEnvoy  = flag.String("attack.envoy", "", "an `Envoy` to measure the same attacks on, in turn")
)

// TestAttacks (F43, F44): a hostile connection is cut off after a number of frames that is bounded, while other clients
// are served, and memory stays bounded. How long that takes, and what it costs the others, is a figure for a person. The
// attacker is taken to be on another machine: the proxy has a processor of its own, and the attackers what the honest
// clients and the origin leave of the others. Otherwise they would take as much from those as any busy process does,
// whatever the proxy did.
func TestAttacks(t *testing.T) {
	start := apart(t)
	port := origin(t)
	victims := []*victim{newVictim(t, "meshtap", sidecar.Options{Bootstrap: bootstrap("AUTO", port, ""), Start: start})}
	if *attackEnvoy != "" {
		victims = append(victims, newVictim(t, "Envoy", sidecar.Options{Bootstrap: bootstrap("AUTO", port, ""), Start: start, Envoy: *attackEnvoy}))
	}
	for i, c := range attacks {
		t.Run(c.name, func(t *testing.T) {
			meshtap := victims[0]
			before, rss := meshtap.p.Admin().Stats()[c.counter], resident(t, meshtap.p.Pid())
			quiet, attacked := make([][]time.Duration, len(victims)), make([][]time.Duration, len(victims))
			for range *attackRounds {
				for v, victim := range victims {
					q, a := victim.suffer(t, i)
					quiet[v], attacked[v] = append(quiet[v], q), append(attacked[v], a)
				}
			}
			for v, victim := range victims {
				q, a := quartile(quiet[v]), quartile(attacked[v])
				t.Logf("figure: %s: p99 of others %v, and %v under attack: %.1f times; %d KiB resident", victim.name, q, a,
					float64(a)/float64(q), resident(t, victim.p.Pid()))
			}
			if meshtap.p.Admin().Stats()[c.counter] == before {
				t.Errorf("%s has not moved", c.counter)
			}
			if grown := resident(t, meshtap.p.Pid()) - rss; grown > 32<<10 {
				t.Errorf("%d KiB more than before", grown)
			}
		})
	}
}

// victim is a proxy that is attacked.
type victim struct {
	name string
	p    *sidecar.Proxy
	port string
}

func newVictim(t *testing.T, name string, o sidecar.Options) *victim {
	v := &victim{name: name, p: sidecar.Run(t, o)}
	v.p.Ready()
	_, v.port, _ = cutLast(v.p.Admin().Listeners()["web"], ':')
	serveMeanwhile(t, v.port, func() { time.Sleep(time.Second) })
	return v
}

// suffer serves honest clients in quiet and then under an attack, and returns how long they wait, at the 99th percentile.
func (v *victim) suffer(t *testing.T, attack int) (quiet, attacked time.Duration) {
	var said string
	before := processor(t, v.p.Pid())
	quiet = serveMeanwhile(t, v.port, func() { time.Sleep(*attackFor) })
	between := processor(t, v.p.Pid())
	attacked = serveMeanwhile(t, v.port, func() { said = attackFrom(t, attack, v.port, v.name != "meshtap") })
	t.Logf("figure: %s: %sp99 %v, then %v; processor %v, then %v", v.name, said, quiet, attacked, between-before,
		processor(t, v.p.Pid())-between)
	return quiet, attacked
}

func quartile(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/4]
}

// attackVariable makes this program an attacker: it holds the number of the attack, the port, for how long, and whether the
// proxy may do as it likes.
const attackVariable = "MESHTAP_TEST_ATTACK"

// attackFrom attacks from another process that only runs while no other wants the processor, and returns what
// that one says of it.
func attackFrom(t *testing.T, attack int, port string, lenient bool) (said string) {
	cmd := exec.CommandContext(t.Context(), "chrt", "--idle", "0", os.Args[0], "-test.run=^TestAttacker$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s %d %t", attackVariable, attack, port, *attackFor, lenient))
	out, err := cmd.CombinedOutput()
	_, said, ok := strings.Cut(string(out), "figure: ")
	if said, _, _ = strings.Cut(said, "\n"); err != nil || !ok {
		t.Errorf("%v\n%s", err, out)
	}
	return said
}

// TestAttacker is the other process of TestAttacks.
func TestAttacker(t *testing.T) {
	var attack, port int
	var long time.Duration
	var lenient bool
	if n, _ := fmt.Sscan(os.Getenv(attackVariable), &attack, &port, (*int64)(&long), &lenient); n != 4 {
		t.Skip("this is a part of TestAttacks")
	}
	c := attacks[attack]
	var worst uint32
	var cuts int
	var slowest time.Duration
	until := time.Now().Add(long)
	for ; time.Now().Before(until); cuts++ {
		limit := time.Now().Add(sidecar.Hang)
		if lenient {
			limit = until
		}
		last, took, ended := cutOff(t, strconv.Itoa(port), c.next, limit)
		n := (last + 1) / 2
		if !ended {
			if !lenient {
				t.Error("nobody ended the attack")
			}
			break
		}
		if most := c.streams + uint32(resets*took.Seconds()); !lenient && c.streams > 0 && n > most {
			t.Errorf("%d streams were looked at in %v", n, took)
		}
		worst, slowest = max(worst, n), max(slowest, took)
	}
	fmt.Printf("figure: %d connections cut off one after the other, each within %v; %d streams looked at, at most; \n", cuts, slowest, worst)
}

// cutOff attacks over one connection until it ends, which it should before the limit.
func cutOff(t *testing.T, port string, next func(a *attacker, n uint32), limit time.Time) (last uint32, took time.Duration, ended bool) {
	a := newAttacker(t, port)
	defer a.conn.Close()
	_ = a.conn.SetDeadline(limit)
	began := time.Now()
	var writing sync.WaitGroup
	writing.Go(func() {
		for n := uint32(0); a.end == nil; n++ {
			next(a, n)
		}
	})
	last, code, said := a.goAway()
	took = time.Since(began)
	a.conn.Close()
	writing.Wait()
	if said && code != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("GOAWAY with %v", code)
	}
	return last, took, !errors.Is(a.end, os.ErrDeadlineExceeded)
}

// TestBomb (F45): connections without a window open 1,000 streams each, with as large a head as is taken, made of
// references to one entry of the table. What they hold is bounded, also together, and others are served meanwhile.
func TestBomb(t *testing.T) {
	for _, c := range []struct{ connections, most int }{{1, 32 << 10}, {40, 160 << 10}} {
		t.Run(fmt.Sprintf("%d connections", c.connections), func(t *testing.T) {
			const streams = 1000
			p, port := listen(t, strings.Replace(bootstrap("AUTO", origin(t), ""), "codec_type: AUTO",
				fmt.Sprintf("codec_type: AUTO\n          http2_protocol_options: {max_concurrent_streams: %d}", streams), 1))
			quiet := serveMeanwhile(t, port, func() { time.Sleep(2 * time.Second) })
			before := resident(t, p.Pid())
			p99 := serveMeanwhile(t, port, func() {
				for range c.connections {
					defer bomb(t, port, streams).conn.Close()
				}
				p.Admin().UntilStats(func(s sidecar.Stats) bool {
					return s["http2.pending_send_bytes"]/int64(len("here\n"))+s["http2.tx_reset"] >= int64(streams*c.connections)
				})
				s := p.Admin().Stats()
				held := resident(t, p.Pid()) - before
				t.Logf("figure: of %d streams with 54 KiB of head each, %d were refused and %d wait for a window: %d KiB more resident",
					streams*c.connections, s["http2.tx_reset"], s["http2.streams_active"], held)
				if held > c.most {
					t.Errorf("%d KiB are held, of %d", held, c.most)
				}
			})
			t.Logf("figure: p99 of others %v (%.1f times)", p99, float64(p99)/float64(quiet))
		})
	}
}

// bomb opens streams with large heads on a connection without a window.
func bomb(t *testing.T, port string, streams uint32) *attacker {
	a := newAttacker(t, port, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	fields := slices.Repeat([]hpack.HeaderField{{Name: "x", Value: strings.Repeat("a", 3<<10)}}, 18)
	for i := range streams {
		a.get(2*i+1, true, fields...)
	}
	if a.must(a.out.Flush()); a.end != nil {
		t.Error(a.end)
	}
	return a
}

// serveMeanwhile asks as eight honest clients while f runs, and returns the 99th percentile of how long they wait.
func serveMeanwhile(t testing.TB, port string, f func()) time.Duration {
	var mu sync.Mutex
	var all []time.Duration
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetUnencryptedHTTP2(true)
		client := &http.Client{Transport: tr, Timeout: sidecar.Hang}
		wg.Go(func() {
			defer tr.CloseIdleConnections()
			for pace := time.NewTicker(5 * time.Millisecond); ; <-pace.C {
				select {
				case <-stop:
					pace.Stop()
					return
				default:
				}
				began := time.Now()
				resp, err := client.Get("http://127.0.0.1:" + port + "/")
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || string(body) != "here\n" {
					t.Errorf("an honest client got %d, %q, %v", resp.StatusCode, body, err)
				}
				mu.Lock()
				all = append(all, time.Since(began))
				mu.Unlock()
			}
		})
	}
	f()
	close(stop)
	wg.Wait()
	slices.Sort(all)
	return all[len(all)*99/100]
}

// resident returns the memory of a process in KiB.
func resident(t testing.TB, pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// processor returns the processor time that a process has used.
func processor(t testing.TB, pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * time.Second / 100 // USER_HZ
}

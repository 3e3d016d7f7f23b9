// SPDX-License-Identifier: Apache-2.0

//go:build buses

package buses

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/sink/rabbitmq"
	"github.com/meshtap/meshtap/internal/login"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

// rabbit is a RabbitMQ node whose only user is tap with the password right.
type rabbit struct {
	*server
	secure string // where it speaks TLS
	ca     *sink.Authority
	dir    string
	epmd   string
}

func startRabbit(t *testing.T, conf string) *rabbit {
	t.Helper()
	return startRabbitOn(t, freePorts(t, 4), t.TempDir(), conf)
}

// startRabbitOn starts a node with its state in dir, on ports: of AMQP, of the distribution, of epmd, and of TLS.
func startRabbitOn(t *testing.T, p []string, dir, conf string) *rabbit {
	t.Helper()
	r := &rabbit{dir: dir, ca: sink.NewAuthority(t), secure: "127.0.0.1:" + p[3], epmd: p[2]}
	cert, key := r.ca.Issue(t)
	conf += fmt.Sprintf("default_user = tap\ndefault_pass = right\nlisteners.ssl.default = %s\nssl_options.cacertfile = %s\n"+
		"ssl_options.certfile = %s\nssl_options.keyfile = %s\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n",
		r.secure, r.ca.File, cert, key)
	if err := os.WriteFile(filepath.Join(r.dir, "rabbitmq.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	r.server = start(t, &server{
		addr: "127.0.0.1:" + p[0], args: []string{"./rabbitmq.sh", r.dir, p[0], p[1], p[2]}, ready: rabbitWorks,
	})
	return r
}

func rabbitWorks(addr string) error {
	c, err := amqp091.Dial("amqp://tap:right@" + addr)
	if err == nil {
		err = c.Close()
	}
	return err
}

func (r *rabbit) config(t *testing.T, exchange string) rabbitmq.Config {
	t.Helper()
	return rabbitmq.Config{
		Servers: []rabbitmq.Server{{Address: r.addr}}, VHost: "/", User: "tap", PasswordFile: sink.WriteFile(t, "right\n", 0o600),
		Exchange: exchange, RoutingKey: "{class}.{key}", Declare: &rabbitmq.Declare{Queue: exchange, Binding: "#"},
		InFlight: 4, AckTimeout: 30 * time.Second,
	}
}

// take takes what a queue holds now.
func (r *rabbit) take(t *testing.T, queue string) (out []amqp091.Delivery) {
	t.Helper()
	c, err := amqp091.Dial("amqp://tap:right@" + r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() // which has the acknowledgements arrive before
	ch, err := c.Channel()
	if err != nil {
		t.Fatal(err)
	}
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	in, err := ch.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for len(out) < q.Messages {
		select {
		case d, ok := <-in:
			if !ok {
				t.Fatal("the broker has closed the channel")
			}
			if err := d.Ack(false); err != nil { // what is delivered beyond that goes back
				t.Fatal(err)
			}
			out = append(out, d)
		case <-time.After(30 * time.Second):
			t.Fatalf("%d messages of %d", len(out), q.Messages)
		}
	}
	return out
}

// events puts messages back into the form that a structured one has, and checks what is around them.
func events(t *testing.T, from []amqp091.Delivery) (out [][]byte) {
	t.Helper()
	for _, d := range from {
		body := d.Body
		if d.ContentType == "application/json" {
			parts := []string{fmt.Sprintf(`"datacontenttype":"application/json","data":%s`, d.Body)}
			for k, v := range d.Headers {
				if name, ok := strings.CutPrefix(k, "cloudEvents_"); ok {
					parts = append(parts, fmt.Sprintf("%q:%q", name, v))
				}
			}
			body = fmt.Appendf(nil, "{%s}", strings.Join(parts, ","))
		}
		e := sink.Decode(t, body)
		if d.MessageId != string(e.ID) || d.DeliveryMode != amqp091.Persistent || !strings.HasPrefix(d.RoutingKey, e.Kind.String()) {
			t.Errorf("message id %s, mode %d, key %s for %s of %s", d.MessageId, d.DeliveryMode, d.RoutingKey, e.ID, e.Kind)
		}
		out = append(out, body)
	}
	return out
}

// TestRabbitMQ runs the conformance suite and what RabbitMQ has beside it over one node, since it takes seconds to start.
func TestRabbitMQ(t *testing.T) {
	t.Parallel()
	r := startRabbit(t, "")
	n := 0
	sink.RunShared(t, func(t *testing.T) sink.Bus {
		n++
		cfg := r.config(t, fmt.Sprint("suite", n))
		cfg.Declare.Classic = true // a quorum queue of RabbitMQ 3.10 that is killed soon after it was made finds no leader again
		return sink.Bus{
			Sink:   func(*testing.T) eventtap.Sink { return rabbitmq.New(cfg, deps(t)) },
			Events: func(t *testing.T) [][]byte { return events(t, r.take(t, cfg.Exchange)) },
			Kill:   r.kill, Revive: r.revive, Patient: true,
			Stranger: func(t *testing.T) eventtap.Sink {
				stranger := cfg
				stranger.PasswordFile = sink.WriteFile(t, "wrong", 0o600)
				return rabbitmq.New(stranger, deps(t))
			},
			Narrow: func(t *testing.T) sink.Narrow { return narrowRabbit(t) },
			Secure: func(*testing.T) (*sink.Authority, func(login.TLS) eventtap.Sink) {
				return r.ca, func(l login.TLS) eventtap.Sink {
					secure := cfg
					secure.Servers, secure.TLS = []rabbitmq.Server{{Address: r.secure, Secure: true}}, &l
					return rabbitmq.New(secure, deps(t))
				}
			},
		}
	})
	load := func(name string, change func(*rabbitmq.Config), kill, revive func(*testing.T)) {
		t.Run(name, func(t *testing.T) {
			cfg := r.config(t, name)
			change(&cfg)
			sink.KillUnderLoad(t, sink.Killable{
				Sink: rabbitmq.New(cfg, deps(t)), Kill: kill, Revive: revive, Rounds: 2, Missed: 2000, Repeats: true,
				Events: func(t *testing.T) [][]byte { return events(t, r.take(t, cfg.Exchange)) },
			})
		})
	}
	load("killed", func(c *rabbitmq.Config) { c.Structured, c.Proto, c.Declare.Classic = true, true, true }, r.kill, r.revive)
	load("paused", func(c *rabbitmq.Config) { c.Structured = true }, r.pause, r.resume)
	load("silent", func(c *rabbitmq.Config) { c.AckTimeout = 500 * time.Millisecond }, func(t *testing.T) { r.pause(t); time.Sleep(time.Second) }, r.resume)
	load("blocked", func(*rabbitmq.Config) {},
		func(t *testing.T) { r.ctl(t, "set_vm_memory_high_watermark", "0.00001") },
		func(t *testing.T) { r.ctl(t, "set_vm_memory_high_watermark", "0.4") })
	t.Run("unroutable", func(t *testing.T) { unroutable(t, r) })
	t.Run("full", func(t *testing.T) { full(t, r) })
	t.Run("example", func(t *testing.T) { rabbitExample(t, r) })
	t.Run("advice", func(t *testing.T) { rabbitAdvice(t, r) })
}

// ctl runs RabbitMQ's own command line tool.
func (r *rabbit) ctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := r.tool(t, "rabbitmqctl", args...)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return string(out)
}

// tool runs one of RabbitMQ's own command line tools, and returns what it prints. It is ended after a while: it waits for a
// node that is stopped.
func (r *rabbit) tool(t *testing.T, name string, args ...string) ([]byte, error) {
	t.Helper()
	script := strings.TrimSpace(run(t, "sh", "-c", "dpkg -L rabbitmq-server | grep 'lib/rabbitmq/bin/"+name+"$'"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, script, append([]string{"-n", r.node()}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+r.dir, "ERL_EPMD_PORT="+r.epmd)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s%s", err, out, &stderr)
	}
	return out, err
}

// node is what the node is called.
func (r *rabbit) node() string { return rabbitNode(strings.TrimPrefix(r.addr, "127.0.0.1:")) }

// rabbitNode is what rabbitmq.sh calls the node of a port.
func rabbitNode(port string) string { return "meshtap" + port + "@localhost" }

// narrowRabbit is a node of its own, since how large a message may be is a setting of the whole node.
func narrowRabbit(t *testing.T) sink.Narrow {
	r := startRabbit(t, fmt.Sprintf("max_message_size = %d\n", sink.NarrowBytes))
	cfg := r.config(t, "narrow")
	cfg.DeadLetter = "narrow.dead"
	return sink.Narrow{
		Sink:   rabbitmq.New(cfg, deps(t)),
		Events: func(t *testing.T) [][]byte { return events(t, r.take(t, "narrow")) },
	}
}

// unroutable has a queue that takes one class only: the others go to the dead letters, and are counted. So do the events
// that tell of the loss, which are of another class.
func unroutable(t *testing.T, r *rabbit) {
	cfg := r.config(t, "some")
	cfg.Declare.Binding, cfg.DeadLetter = "outcome.#", "some.dead"
	tap := sink.NewTap(t, eventtap.DefaultMemory, rabbitmq.New(cfg, deps(t)))
	for n := range 300 {
		tap.Observe(sink.Outcome("x", n))
		if n%100 == 0 {
			tap.Notify(&mesh.Notice{Kind: mesh.NoticeStart, Time: time.Now().UnixNano()})
		}
	}
	if err := tap.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := sink.Check(t, tap)
	if came := len(events(t, r.take(t, "some"))); came != 300 || a.Acked != 300 || a.Dropped[eventtap.Refused] != 3 {
		t.Errorf("account %+v, %d came", a, came)
	}
	dead := 0
	for _, d := range r.take(t, "some.dead") {
		e := sink.Decode(t, d.Body)
		if why := fmt.Sprint(d.Headers["meshtap-refused"]); !strings.Contains(why, "NO_ROUTE") {
			t.Errorf("refused because: %s", why)
		}
		if e.Kind == event.Lifecycle {
			dead++
		}
	}
	if dead != 3 {
		t.Errorf("%d events among the dead letters", dead)
	}
}

// full has a queue that refuses (basic.nack) what it has no room for: all comes, once there is.
func full(t *testing.T, r *rabbit) {
	cfg := r.config(t, "full")
	cfg.Declare.Classic, cfg.Declare.MaxBytes, cfg.Declare.RejectWhenFull = true, 1<<20, true
	cfg.Structured = true
	tap := sink.NewTap(t, eventtap.DefaultMemory, rabbitmq.New(cfg, deps(t)))
	const n = 3000 // of about 800 bytes, where 1 MiB has room
	for i := range n {
		tap.Observe(sink.Outcome(fmt.Sprint("svc-", i%3), i))
	}
	came := map[string]bool{}
	for end := time.Now().Add(time.Minute); len(came) < n && time.Now().Before(end); {
		if sink.Check(t, tap).Retries == 0 {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		for _, d := range r.take(t, "full") {
			came[d.MessageId] = true
		}
	}
	if err := tap.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := sink.Check(t, tap); len(came) != n || a.Acked != n || a.Retries == 0 {
		t.Errorf("%d came, account %+v", len(came), a)
	}
}

// rabbitAdvice has configurations that do not work, each for a reason that a person can do something about.
func rabbitAdvice(t *testing.T, r *rabbit) {
	for name, c := range map[string]struct {
		change func(*rabbitmq.Config)
		want   string
	}{
		"no exchange":       {func(c *rabbitmq.Config) { c.Declare = nil }, "create it, or set declare"},
		"no virtual host":   {func(c *rabbitmq.Config) { c.VHost = "none" }, "create the virtual host none"},
		"guest":             {func(c *rabbitmq.Config) { c.User = "" }, "the user guest, which it lets in"},
		"another queue":     {func(c *rabbitmq.Config) { c.Declare.Queue = "suite1" }, "declared with other settings"},
		"a wrong password":  {func(c *rabbitmq.Config) { c.PasswordFile = sink.WriteFile(t, "wrong", 0o600) }, "refused the user tap with the password of"},
		"TLS where none is": {func(c *rabbitmq.Config) { c.Servers[0].Secure = true }, "speaks no TLS there"},
	} {
		cfg := r.config(t, "advice-"+strings.ReplaceAll(name, " ", "-"))
		c.change(&cfg)
		if err := rabbitmq.New(cfg, deps(t)).Open(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

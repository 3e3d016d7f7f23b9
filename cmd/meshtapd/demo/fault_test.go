// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

func TestReadFault(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		body string
		want Fault
		fail string
	}{
		"nothing":                {body: `{}`},
		"abort":                  {body: `{"abort_percent":30}`, want: Fault{AbortPercent: 30, AbortStatus: 503}},
		"abort with a status":    {body: `{"abort_percent":30,"abort_status":404}`, want: Fault{AbortPercent: 30, AbortStatus: 404}},
		"delay":                  {body: `{"delay_ms":5}`, want: Fault{DelayMS: 5, DelayPercent: 100}},
		"some delay":             {body: `{"delay_ms":5,"delay_percent":1.5}`, want: Fault{DelayMS: 5, DelayPercent: 1.5}},
		"as the CLI writes it":   {body: `{"abort_percent":0,"abort_status":0,"delay_ms":0,"delay_percent":0,"reset_percent":5}`, want: Fault{ResetPercent: 5}},
		"more than all":          {body: `{"reset_percent":101}`, fail: "reset_percent must be from 0 to 100"},
		"less than none":         {body: `{"abort_percent":-1}`, fail: "abort_percent must be from 0 to 100"},
		"a status that is none":  {body: `{"abort_percent":1,"abort_status":399}`, fail: "abort_status must be from 400 to 599"},
		"too long a delay":       {body: `{"delay_ms":60001}`, fail: "delay_ms must be from 0 to 60000"},
		"a share of no delay":    {body: `{"delay_percent":1}`, fail: "delay_ms is required where delay_percent is set"},
		"a field that is none":   {body: `{"abort":1}`, fail: `unknown field "abort"; abort_percent, abort_status`},
		"a word for a number":    {body: `{"abort_percent":"all"}`, fail: "cannot unmarshal"},
		"two faults":             {body: `{} {}`, fail: "more than one"},
		"no JSON":                {body: `abort`, fail: "invalid character"},
		"an empty body":          {body: ``, fail: "EOF"},
		"a number that is none":  {body: `{"abort_percent":1e999}`, fail: "cannot unmarshal"},
		"a delay that overflows": {body: `{"delay_ms":99999999999999999999}`, fail: "cannot unmarshal"},
	} {
		got, err := readFault([]byte(tc.body))
		switch {
		case tc.fail == "" && (err != nil || got != tc.want):
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, tc.want)
		case tc.fail != "" && (err == nil || !strings.Contains(err.Error(), tc.fail)):
			t.Errorf("%s: got %v, want %q", name, err, tc.fail)
		}
	}
}

func FuzzReadFault(f *testing.F) {
	for _, seed := range []string{`{}`, `{"abort_percent":30,"abort_status":503}`, `{"delay_ms":5,"delay_percent":1.5}`, `{"reset_percent":1e2}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := readFault(body)
		if err != nil {
			return
		}
		again := got
		if err := again.complete(); err != nil || again != got {
			t.Errorf("%q gives %+v, which is completed to %+v, %v", body, got, again, err)
		}
	})
}

// world makes a world whose services are no processes: each takes faults as a toy does, in a goroutine.
func world(t *testing.T) *World {
	t.Helper()
	w := &World{}
	for _, name := range []string{"web", "orders"} {
		in, commands, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		answers, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		s := &service{name: name, commands: commands, answers: answers, reader: bufio.NewReader(answers), listener: listener(t)}
		toy := &toy{}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			toy.obey(in, out)
		}()
		t.Cleanup(func() {
			s.close()
			<-ended
			in.Close()
			out.Close()
		})
		w.services = append(w.services, s)
	}
	return w
}

func listener(t *testing.T) *net.TCPListener {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// ask makes a request of the fault switches, without a connection.
func ask(w *World, method, path, body string) (int, string) {
	ctx := &fasthttp.RequestCtx{}
	ctx.Request.Header.SetMethod(method)
	ctx.Request.SetRequestURI(path)
	ctx.Request.SetBodyString(body)
	w.Handle(ctx)
	return ctx.Response.StatusCode(), string(ctx.Response.Body())
}

// TestFaultSwitches goes through what `meshtap fault` sends, in order.
func TestFaultSwitches(t *testing.T) {
	t.Parallel()
	w := world(t)
	for _, tc := range []struct {
		method, path, body string
		status             int
		answer             string
		faults             map[string]Fault // after it
	}{
		{"GET", "/faults", "", 200, "{}\n", nil},
		{"PUT", "/faults/orders", `{"abort_percent":30}`, 204, "", map[string]Fault{"orders": {AbortPercent: 30, AbortStatus: 503}}},
		{"PUT", "/faults/web", `{"delay_ms":7}`, 204, "", map[string]Fault{"orders": {AbortPercent: 30, AbortStatus: 503}, "web": {DelayMS: 7, DelayPercent: 100}}},
		{"PUT", "/faults/orders", `{"reset_percent":101}`, 400, "reset_percent must be from 0 to 100\n", map[string]Fault{"orders": {AbortPercent: 30, AbortStatus: 503}, "web": {DelayMS: 7, DelayPercent: 100}}},
		{"PUT", "/faults/orders", `{"reset_percent":1}`, 204, "", map[string]Fault{"orders": {ResetPercent: 1}, "web": {DelayMS: 7, DelayPercent: 100}}},
		{"DELETE", "/faults/orders", "", 204, "", map[string]Fault{"web": {DelayMS: 7, DelayPercent: 100}}},
		{"DELETE", "/faults/orders", "", 204, "", map[string]Fault{"web": {DelayMS: 7, DelayPercent: 100}}},
		{"DELETE", "/faults/web", "", 204, "", nil},
		{"PUT", "/faults/order", `{}`, 400, "there is no service \"order\"; there are web, orders\n", nil},
		{"POST", "/faults/orders", `{}`, 405, "GET /faults, PUT and DELETE /faults/{service} are known\n", nil},
		{"DELETE", "/faults", "", 405, "GET /faults, PUT and DELETE /faults/{service} are known\n", nil},
		{"GET", "/", "", 404, "there is /faults and /faults/{service}\n", nil},
	} {
		if status, answer := ask(w, tc.method, tc.path, tc.body); status != tc.status || answer != tc.answer {
			t.Errorf("%s %s %s: %d %q, want %d %q", tc.method, tc.path, tc.body, status, answer, tc.status, tc.answer)
		}
		var got map[string]Fault
		if _, answer := ask(w, "GET", "/faults", ""); json.Unmarshal([]byte(answer), &got) != nil || len(got) != len(tc.faults) {
			t.Errorf("after %s %s: %s", tc.method, tc.path, answer)
		}
		for name, f := range tc.faults {
			if got[name] != f {
				t.Errorf("after %s %s, %s has %+v, want %+v", tc.method, tc.path, name, got[name], f)
			}
		}
	}
}

// A toy that is gone takes no fault, and that is said.
func TestFaultOfDeadToy(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.services[0].answers.Close()
	if status, answer := ask(w, "PUT", "/faults/web", `{}`); status != 500 || !strings.Contains(answer, "web does not take the fault: ") {
		t.Errorf("%d %q", status, answer)
	}
	w.services[1].close()
	if status, answer := ask(w, "PUT", "/faults/orders", `{}`); status != 500 || answer != "orders does not run\n" {
		t.Errorf("%d %q", status, answer)
	}
}

// startToy runs a toy in this process and returns its address, and a function that gives it a fault.
func startToy(t *testing.T, toy Toy) (address string, set func(Fault)) {
	t.Helper()
	ln := listener(t)
	in, commands := net.Pipe()
	answers, out := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- toy.Run(ctx, ln, in, out) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the toy ends with %v", err)
		}
		for _, c := range []net.Conn{in, commands, answers, out} {
			c.Close()
		}
	})
	reader := bufio.NewReader(answers)
	return ln.Addr().String(), func(f Fault) {
		t.Helper()
		line, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := commands.Write(append(line, '\n')); err != nil {
			t.Fatal(err)
		}
		if answer, err := reader.ReadString('\n'); err != nil || answer != "ok\n" {
			t.Fatalf("the toy answers %q, %v", answer, err)
		}
	}
}

func TestToy(t *testing.T) {
	t.Parallel()
	payments, breakPayments := startToy(t, Toy{Name: "payments"})
	orders, breakOrders := startToy(t, Toy{Name: "orders", Next: "payments", Outbound: payments})
	alone, _ := startToy(t, Toy{Name: "web", Next: "orders", Outbound: "127.0.0.1:1"})
	get := func(address string) (int, string, error) {
		req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
		defer fasthttp.ReleaseRequest(req)
		defer fasthttp.ReleaseResponse(resp)
		req.SetRequestURI("http://" + address + "/orders/7")
		client := fasthttp.Client{RetryIfErr: func(*fasthttp.Request, int, error) (bool, bool) { return false, false }}
		err := client.Do(req, resp)
		return resp.StatusCode(), string(resp.Body()), err
	}
	check := func(what, address string, status int, want string) {
		t.Helper()
		if got, body, err := get(address); err != nil || got != status || !strings.Contains(body, want) {
			t.Errorf("%s: %d %q, %v, want %d %q", what, got, body, err, status, want)
		}
	}
	check("a call of two", orders, 200, `{"service":"orders","payments":{"service":"payments","path":"/orders/7"}}`)
	breakPayments(Fault{AbortPercent: 100, AbortStatus: 418})
	check("an answer that is no failure", orders, 200, `"payments":{"service":"payments","error":"a fault was asked for"}`)
	breakPayments(Fault{AbortPercent: 100, AbortStatus: 503})
	check("a failure of the next", orders, 502, "payments answered 503")
	breakOrders(Fault{AbortPercent: 100, AbortStatus: 500})
	check("its own fault", orders, 500, "a fault was asked for")
	breakOrders(Fault{ResetPercent: 100})
	if status, body, err := get(orders); err == nil {
		t.Errorf("a cut connection: %d %q", status, body)
	}
	breakOrders(Fault{DelayMS: 1, DelayPercent: 100})
	breakPayments(Fault{})
	check("after all that", orders, 200, `"payments":{"service":"payments"`)
	check("nobody to call", alone, 502, "connection refused")
}

// A toy ends with what it takes commands from: the parent.
func TestToyEndsWithItsCommands(t *testing.T) {
	t.Parallel()
	if err := (Toy{Name: "x"}).Run(t.Context(), listener(t), strings.NewReader("nonsense\n"), &strings.Builder{}); err != nil {
		t.Error(err)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	address, set := startToy(t, Toy{Name: "payments"})
	l := newLoader(address)
	if err := l.wait(t.Context(), "payments", address, "payments"); err != nil {
		t.Fatal(err)
	}
	run := func(enough func(Load) bool) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			l.run(ctx, 500)
		}()
		for !enough(l.seen()) {
			l.one() // it goes on, whatever the clock does
		}
		cancel()
		<-ended
	}
	run(func(s Load) bool { return s.OK >= 20 })
	if s := l.seen(); s.Failed != 0 {
		t.Errorf("%+v", s)
	}
	set(Fault{AbortPercent: 100, AbortStatus: 503})
	run(func(s Load) bool { return s.Failed >= 20 })
}

// What does not get ready says what it is waiting for.
func TestWaitGivesUp(t *testing.T) {
	t.Parallel()
	address, _ := startToy(t, Toy{Name: "payments"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct{ address, want string }{
		"nobody there":     {"127.0.0.1:1", "web cannot be called"},
		"the wrong answer": {address, "web answers 200"},
	} {
		if err := newLoader(tc.address).wait(ctx, "web", tc.address, "everything"); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

//go:build netns

package netns_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meshtap/meshtap/test/e2e/origin"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
	"github.com/meshtap/meshtap/test/netns"
)

func TestMain(m *testing.M) {
	netns.Sweep()
	os.Exit(sidecar.Main(m))
}

// proxyUser is the user whose connections the rules of configs/intercept.yaml leave alone.
const proxyUser = 1337

// family is what differs between IPv4 and IPv6.
type family struct {
	name               string
	v6                 bool
	pod, remote, local string
}

func families() []family {
	return []family{
		{name: "IPv4", pod: podIP, remote: remoteIP, local: "127.0.0.1"},
		{name: "IPv6", v6: true, pod: podIP6, remote: remoteIP6, local: "::1"},
	}
}

// each runs a test for both families, and leaves IPv6 out by name where the kernel cannot redirect it.
func each(t *testing.T, test func(t *testing.T, f family)) {
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			if f.v6 {
				if out, err := exec.Command("ip6tables", "-t", "nat", "-S").CombinedOutput(); err != nil {
					t.Skipf("this kernel has no nat table for IPv6: %v: %s", err, out)
				}
			}
			test(t, f)
		})
	}
}

// at joins an address of the family with a port.
func at(ip string, port int) string { return net.JoinHostPort(ip, fmt.Sprint(port)) }

// text turns a configuration for IPv4 into one for this family.
func (f family) text(config string) string {
	if !f.v6 {
		return config
	}
	return strings.NewReplacer("address: 0.0.0.0,", `address: "::",`, "address: 127.0.0.1,", `address: "::1",`).Replace(config)
}

// rules are the iptables commands that the example tells people to use, for this family.
func (f family) rules(t *testing.T, example string) (rules [][]string) {
	t.Helper()
	for _, m := range iptables.FindAllStringSubmatch(example, -1) {
		rule := strings.ReplaceAll(m[1], "-d 127.0.0.1", "-d "+f.local)
		if f.v6 {
			rule = strings.Replace(rule, "iptables", "ip6tables", 1)
		}
		rules = append(rules, strings.Fields(rule))
	}
	if len(rules) == 0 {
		t.Fatal("intercept.yaml has no iptables commands")
	}
	return rules
}

var iptables = regexp.MustCompile(`(?m)^#   (iptables .*)$`)

// binary is the built proxy in a namespace.
type binary struct {
	*sidecar.Proxy
	ns    *netns.Namespace
	admin *sidecar.Admin
}

// startBinary runs the built proxy in a namespace as a user.
func startBinary(t *testing.T, ns *netns.Namespace, uid int, config string) *binary {
	t.Helper()
	const admin = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}\n"
	b := &binary{ns: ns}
	b.Proxy = sidecar.Run(t, sidecar.Options{Bootstrap: admin + config, Start: func(c *exec.Cmd) error {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		return ns.Do(c.Start)
	}})
	b.Ready()
	b.admin = b.AdminAt("127.0.0.1:9901", &http.Transport{
		DialContext: func(_ context.Context, _, addr string) (net.Conn, error) { return dialAs(ns, uid, addr) },
		// Each question is on a connection of its own, so that none is held when the proxy counts them.
		DisableKeepAlives: true,
	})
	return b
}

func dialAs(ns *netns.Namespace, uid int, addr string) (c net.Conn, err error) {
	err = ns.DoAs(uid, func() error {
		c, err = net.DialTimeout("tcp", addr, hang)
		return err
	})
	return c, err
}

// listen binds in a namespace.
func listen(t *testing.T, ns *netns.Namespace, addr string) net.Listener {
	t.Helper()
	var ln net.Listener
	err := ns.Do(func() (err error) {
		ln, err = net.Listen("tcp", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// get makes a request on a connection of its own.
func get(t *testing.T, c net.Conn, host string) (status int, by, body string) {
	t.Helper()
	fmt.Fprintf(c, "GET /x HTTP/1.1\r\nhost: %s\r\nconnection: close\r\n\r\n", host)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("X-By"), string(b)
}

// greeted talks with a server that speaks first, and returns its name.
func greeted(t *testing.T, c net.Conn) string {
	t.Helper()
	br := bufio.NewReader(c)
	line, err := br.ReadString('\n')
	name, ok := strings.CutPrefix(strings.TrimSpace(line), "hello from ")
	if !ok {
		t.Fatalf("greeted with %q, %v", line, err)
	}
	fmt.Fprintln(c, "a question")
	if line, err = br.ReadString('\n'); line != name+" a question\n" {
		t.Fatalf("answered with %q, %v", line, err)
	}
	return name
}

// intercepted is configs/intercept.yaml at work: the proxy in a pod with the rules of the example, an application beside it,
// and a world of servers.
func intercepted(t *testing.T, f family, uid int) (p *binary, pod, remote *netns.Namespace, roots *x509.CertPool) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "configs", "intercept.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	pod, remote = pair(t)
	for _, rule := range f.rules(t, string(text)) {
		pod.Run(rule...)
	}
	bank := origin.Certificate(t, "bank.example")
	roots = x509.NewCertPool()
	roots.AddCert(bank.Leaf)
	origin.Serve(t, listen(t, pod, at(f.local, 8080)), "app", nil)
	origin.ServeTCP(t, listen(t, pod, at(f.local, 3306)), "app-database")
	origin.Serve(t, listen(t, remote, at(f.remote, 80)), "web", nil)
	origin.Serve(t, listen(t, remote, at(f.remote, 8000)), "other-port", nil)
	origin.ServeTCP(t, listen(t, remote, at(f.remote, 3306)), "database")
	origin.ServeTLS(t, listen(t, remote, at(f.remote, 443)), "bank", bank)
	return startBinary(t, pod, uid, f.text(string(text))), pod, remote, roots
}

// The example does what it says, with the whole binary, real rules and real connections (F76).
func TestInterceptExample(t *testing.T) {
	each(t, func(t *testing.T, f family) {
		p, pod, remote, roots := intercepted(t, f, proxyUser)
		out := func(port int) net.Conn { return dial(t, pod, appUser, at(f.remote, port)) }
		logged := func(to string, rest string) {
			t.Helper()
			p.Printed(`(?m)-> ` + regexp.QuoteMeta(to) + ` ` + rest + `$`)
		}

		// HTTP goes to the listener of its port, which is not bound, and on to where it was going.
		if status, by, body := get(t, out(80), "web.example"); status != 200 || by != "outbound" || !strings.HasPrefix(body, "web GET /x web.example\n") {
			t.Errorf("HTTP: %d by %q: %s", status, by, body)
		}
		logged(at(f.remote, 80), `PassthroughCluster `+regexp.QuoteMeta(at(f.remote, 80))+` -`)
		if status, _, _ := get(t, out(80), "blocked.example"); status != 403 {
			t.Errorf("a host that is blocked: %d", status)
		}
		// Of any other port nothing is looked at.
		if status, by, body := get(t, out(8000), "web.example"); status != 200 || by != "" || !strings.HasPrefix(body, "other-port ") {
			t.Errorf("HTTP on another port: %d by %q: %s", status, by, body)
		}
		first := out(3306)
		if name := greeted(t, first); name != "database" {
			t.Errorf("a server that speaks first: %s", name)
		}
		first.Close() // it is logged at its end
		logged(at(f.remote, 3306), `PassthroughCluster `+regexp.QuoteMeta(at(f.remote, 3306))+` -`)

		// TLS is passed through by its server name, and the client sees the certificate of the server.
		secure := tls.Client(out(443), &tls.Config{ServerName: "bank.example", RootCAs: roots})
		if name := greeted(t, secure); name != "bank" {
			t.Errorf("TLS: %s", name)
		}
		other := tls.Client(out(443), &tls.Config{ServerName: "other.example", InsecureSkipVerify: true})
		if err := other.Handshake(); err == nil {
			t.Error("a server name that is not let out came through")
		}

		// What comes from elsewhere goes to the application on this machine.
		if status, by, body := get(t, dial(t, remote, 0, at(f.pod, 8080)), "app.example"); status != 200 || by != "inbound" || !strings.HasPrefix(body, "app GET /x app.example\n") {
			t.Errorf("inbound HTTP: %d by %q: %s", status, by, body)
		}
		logged(at(f.pod, 8080), regexp.QuoteMeta("inbound|8080||")+` .* -`)
		if name := greeted(t, dial(t, remote, 0, at(f.pod, 3306))); name != "app-database" {
			t.Errorf("inbound TCP: %s", name)
		}
		wantEnd(t, dial(t, remote, 0, at(f.pod, 9999)))
		if n := p.admin.Stats().Sum("listener.", ".no_filter_chain_match"); n != 2 {
			t.Errorf("%d connections had no chain, want 2", n)
		}
		if n := p.admin.Stats()["meshtap_listener_loops_total"]; n != 0 {
			t.Errorf("%d loops where there are none", n)
		}
	})
}

// Connections that would come back to the proxy for ever end, whoever makes them, and it goes on serving (F76).
func TestLoopsEndInTheBinary(t *testing.T) {
	each(t, func(t *testing.T, f family) {
		t.Run("clients that ask for the proxy's own ports", func(t *testing.T) {
			p, pod, remote, _ := intercepted(t, f, proxyUser)
			for _, c := range []net.Conn{
				dial(t, remote, 0, at(f.pod, outbound)), dial(t, remote, 0, at(f.pod, inbound)),
				dial(t, pod, appUser, at(f.pod, outbound)), dial(t, pod, appUser, at(f.local, outbound)),
			} {
				io.WriteString(c, "GET / HTTP/1.1\r\nhost: x\r\n\r\n")
				wantEnd(t, c)
			}
			few(t, p)
			if status, _, _ := get(t, dial(t, pod, appUser, at(f.remote, 80)), "web.example"); status != 200 {
				t.Errorf("a request behind the loops: %d", status)
			}
		})
		t.Run("its own connections are redirected", func(t *testing.T) {
			p, pod, _, _ := intercepted(t, f, proxyUser+1)
			c := dial(t, pod, appUser, at(f.remote, 3306))
			wantEnd(t, c)
			c.Close() // until then it is half open
			few(t, p)
		})
	})
}

// few: loops were found, and did not go round many times.
func few(t *testing.T, p *binary) {
	t.Helper()
	s := p.admin.UntilStats(func(s sidecar.Stats) bool {
		return s.Sum("listener.", ".downstream_cx_active") == 0 && s["cluster.PassthroughCluster.upstream_cx_active"] == 0
	})
	if n := s["cluster.PassthroughCluster.upstream_cx_total"]; n > 16 {
		t.Errorf("a connection went round %d times", n)
	}
	t.Logf("figure: %d connections made, %d loops found", s["cluster.PassthroughCluster.upstream_cx_total"], s["meshtap_listener_loops_total"])
}

// matching is a listener with a chain for each thing that can be matched. The chain tells its name: it is the cluster's, and
// the server's behind it.
func matching(chains map[string]string, port int) string {
	var b strings.Builder
	b.WriteString(`static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 0.0.0.0, port_value: 15006}}
    use_original_dst: false
    listener_filters:
    - name: envoy.filters.listener.original_dst
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}
    - name: envoy.filters.listener.tls_inspector
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}
    - name: envoy.filters.listener.http_inspector
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}
    listener_filters_timeout: 0.2s
    continue_on_listener_filters_timeout: true
`)
	chain := func(name, match string) {
		fmt.Fprintf(&b, `name: %s
      %s
      filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: in, cluster: %s}
`, name, match, name)
	}
	b.WriteString("    default_filter_chain:\n      ")
	chain("default", "")
	b.WriteString("    filter_chains:\n")
	for name, match := range chains {
		b.WriteString("    - ")
		chain(name, "filter_chain_match: "+match)
	}
	b.WriteString("  clusters:\n")
	for name := range chains {
		cluster(&b, name, &port)
	}
	cluster(&b, "default", &port)
	return b.String()
}

func cluster(b *strings.Builder, name string, port *int) {
	fmt.Fprintf(b, `  - name: %s
    load_assignment:
      cluster_name: %s
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]
`, name, name, *port)
	*port++
}

// Chains are matched in Envoy's order: port, address, server name, transport, application protocol, and then the source; the
// most specific of the first that differs wins, and there is no way back.
func TestFilterChainMatchOrder(t *testing.T) {
	each(t, func(t *testing.T, f family) {
		pod, remote := pair(t)
		bits := 32
		second := "10.77.0.3"
		if f.v6 {
			bits, second = 128, "fd77::3"
		}
		dev := strings.TrimSpace(pod.Run("sh", "-c", "ip -o link | grep -o 'va[0-9a-f]*' | head -1"))
		pod.Run("ip", "addr", "add", fmt.Sprintf("%s/%d", second, bits), "dev", dev, "nodad")
		remote.Run("ip", "route", "add", fmt.Sprintf("%s/%d", second, bits), "via", f.pod)
		pod.Redirect(netns.Redirect{Inbound: true, To: inbound, IPv6: f.v6})
		prefix := func(field, ip string, n int) string {
			return fmt.Sprintf("%s: [{address_prefix: %q, prefix_len: %d}]", field, ip, n)
		}
		chains := map[string]string{
			"port":          "{destination_port: 8080}",
			"port-and-name": `{destination_port: 8080, server_names: [a.example]}`,
			"address":       "{" + prefix("prefix_ranges", second, bits) + "}",
			"name":          `{server_names: [a.example]}`,
			"suffix":        `{server_names: ["*.example"]}`,
			"tls":           "{transport_protocol: tls}",
			"protocol":      `{transport_protocol: tls, application_protocols: [special]}`,
			"http":          `{application_protocols: [http/1.1]}`,
			"source":        "{transport_protocol: raw_buffer, " + prefix("source_prefix_ranges", f.remote, bits) + "}",
			"source-port":   "{transport_protocol: raw_buffer, " + prefix("source_prefix_ranges", f.remote, bits) + ", source_ports: [44444]}",
		}
		config := matching(chains, 20000)
		for _, m := range regexp.MustCompile(`cluster_name: (\S+)\n.*port_value: (\d+)`).FindAllStringSubmatch(config, -1) {
			origin.ServeTCP(t, listen(t, pod, net.JoinHostPort(f.local, m[2])), m[1])
		}
		startBinary(t, pod, proxyUser, f.text(config))
		hello := func(name string, protos ...string) string { return clientHello(t, name, protos) }
		const plain, request = "plain\n", "GET / HTTP/1.1\r\n\r\n"
		for _, tc := range []struct {
			name, to   string
			port, from int // from is the client's port; 0 for any
			send       string
			want       string
		}{
			{"the port comes first", second, 8080, 0, hello("b.example"), "port"},
			{"behind the port, the name", f.pod, 8080, 0, hello("a.example"), "port-and-name"},
			{"no way back from the address to the name", second, 9000, 0, hello("a.example"), "address"},
			{"a whole name", f.pod, 9000, 0, hello("a.example"), "name"},
			{"the end of a name", f.pod, 9000, 0, hello("b.example"), "suffix"},
			{"no way back from the name to the protocol", f.pod, 9000, 0, hello("b.example", "special"), "suffix"},
			{"TLS", f.pod, 9000, 0, hello("elsewhere.test"), "tls"},
			{"TLS without a name", f.pod, 9000, 0, hello(""), "tls"},
			{"the protocol of TLS", f.pod, 9000, 0, hello("elsewhere.test", "special"), "protocol"},
			{"another protocol", f.pod, 9000, 0, hello("elsewhere.test", "h2"), "tls"},
			{"the source", f.pod, 9000, 0, plain, "source"},
			{"the source's port", f.pod, 9000, 44444, plain, "source-port"},
			{"the transport comes before the protocol", f.pod, 9000, 0, request, "source"},
			{"a client that says nothing", f.pod, 9000, 0, "", "source"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				c := dialFrom(t, remote, tc.from, at(tc.to, tc.port))
				io.WriteString(c, tc.send)
				line, err := bufio.NewReader(c).ReadString('\n')
				if want := "hello from " + tc.want + "\n"; line != want {
					t.Errorf("got %q, %v; want %q", line, err, want)
				}
			})
		}
	})
}

// dialFrom connects from a port of a namespace.
func dialFrom(t *testing.T, ns *netns.Namespace, port int, addr string) net.Conn {
	t.Helper()
	var c net.Conn
	err := ns.Do(func() (err error) {
		d := net.Dialer{Timeout: hang, LocalAddr: &net.TCPAddr{Port: port}}
		c, err = d.Dial("tcp", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(hang))
	t.Cleanup(func() { c.Close() })
	return c
}

// clientHello returns the first bytes of a TLS client.
func clientHello(t *testing.T, name string, protos []string) string {
	t.Helper()
	a, b := net.Pipe()
	defer b.Close()
	go tls.Client(a, &tls.Config{ServerName: name, NextProtos: protos, InsecureSkipVerify: true}).Handshake() //nolint:errcheck // it ends with b
	buf := make([]byte, 4096)
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"golang.org/x/sys/unix"

	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/test/e2e/origin"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
	"github.com/meshtap/meshtap/test/fakexds"
)

// Dir returns the folder of the examples, seen from a test of a package two folders below the root.
func Dir() string { return filepath.Join("..", "..", "configs") }

// Rig is a proxy that serves an example, with everything around it.
type Rig struct {
	T     testing.TB
	Proxy *sidecar.Proxy
	Admin *sidecar.Admin
	// A and B are the HTTP servers, Roots trusts the TLS servers, and Files is where files below /tmp went.
	A, B  *origin.HTTP
	Roots *x509.CertPool
	Files string
	// Certificates are those of the example's files; nil where it has none.
	Certificates *testcert.Example
	// Bus is the NATS server, ControlPlane the control plane; nil where the example has none.
	Bus          *origin.Bus
	ControlPlane *fakexds.Server
	// Kafka, RabbitMQ and ZeroMQ are where these are; "" where the example has none. Who sets RabbitMQ has one; nobody is
	// there otherwise.
	Kafka, RabbitMQ, ZeroMQ string
	// GRPC are the servers with gRPC's health service; empty where the example has none.
	GRPC []*GRPCHost
	// Webhook is where events are posted; nil where the example posts none.
	Webhook *Webhook
	// Collector is the access log service; nil where the example has none.
	Collector *origin.Collector
	// Resource returns what the control plane sends at first; nil sends that of configs/ads-resources.yaml, or of the file
	// that is named after the example.
	Resource func() map[string][]types.Resource
	// Envoy says that the proxy is one.
	Envoy bool

	listeners atomic.Pointer[map[string]string] // a load asks while the test looks again
}

// NewRig starts what an example needs around the proxy, and not the proxy.
func NewRig(t testing.TB) *Rig {
	t.Helper()
	g := &origin.Group{}
	return &Rig{T: t, A: origin.Start(t, "a", g), B: origin.Start(t, "b", g), Roots: x509.NewCertPool(), Files: t.TempDir()}
}

// Read returns the text of an example with its ports and files replaced.
func (r *Rig) Read(file string) string {
	r.T.Helper()
	text, err := os.ReadFile(filepath.Join(Dir(), file))
	if err != nil {
		r.T.Fatal(err)
	}
	own := strings.TrimSuffix(file, ".yaml") + "-resources.yaml"
	if _, err := os.Stat(filepath.Join(Dir(), own)); err == nil && r.Resource == nil {
		r.Resource = func() map[string][]types.Resource { return r.Resources(r.Read(own)) }
	}
	return r.Prepare(string(text))
}

var (
	portPattern = regexp.MustCompile(`port_value: (\d+)`)
	natsPattern = regexp.MustCompile(`nats://127\.0\.0\.1:4222`)
	// These stand in examples for a Kafka broker, a RabbitMQ server, where ZeroMQ peers connect, and a webhook.
	kafkaBroker  = "127.0.0.1:9092"
	rabbitServer = "127.0.0.1:5672"
	zeroMQ       = "127.0.0.1:5556"
	webhook      = "127.0.0.1:8090"
	collector    = "127.0.0.1:18090"
)

// Prepare replaces the ports and files of a configuration.
func (r *Rig) Prepare(text string) string {
	r.T.Helper()
	if strings.Contains(text, testcert.ExampleDir) {
		r.certificates()
	}
	if strings.Contains(text, "/tmp/"+xdsFiles) {
		r.resourceFiles()
	}
	stands := map[string]int{}
	text = portPattern.ReplaceAllStringFunc(text, func(s string) string {
		n := strings.TrimPrefix(s, "port_value: ")
		if _, known := stands[n]; !known {
			stands[n] = r.stand(n)
		}
		return "port_value: " + strconv.Itoa(stands[n])
	})
	text = natsPattern.ReplaceAllStringFunc(text, func(string) string {
		if r.Bus == nil {
			r.Bus = origin.StartBus(r.T)
		}
		return r.Bus.URL()
	})
	text = r.buses(text)
	return strings.ReplaceAll(text, "/tmp/", r.Files+"/")
}

// stand starts what stands behind a port of an example, and returns the port where it is.
func (r *Rig) stand(port string) int {
	r.T.Helper()
	tcp := func(name string) int { return int(origin.StartTCP(r.T, name).Addr().Port()) }
	switch port {
	case "10000", "10001", "15001", "15006", "15090", "9901":
		return 0 // the proxy takes a free one, and tells
	case "80", "443":
		n, _ := strconv.Atoi(port) // of listeners that are not bound
		return n
	case "8080", "8081":
		return int(r.A.Addr().Port())
	case "8082":
		return int(r.B.Addr().Port())
	case "8085", "3306":
		return tcp("database")
	case "8086":
		return tcp("replica")
	case "8443":
		return r.tls("one.example")
	case "8444":
		return r.tls("a.two.example")
	case "8445":
		return r.https("web.example")
	case "8087":
		return int(origin.StartGRPC(r.T).Addr().Port())
	case "8089":
		return nobody(r.T)
	case "50051", "50052":
		h := r.grpcHost(map[string]string{"50051": "a", "50052": "b"}[port])
		r.GRPC = append(r.GRPC, h)
		return h.addr.(*net.TCPAddr).Port
	case "18090":
		r.Collector = origin.StartCollector(r.T)
		_, n, _ := net.SplitHostPort(r.Collector.Addr())
		at, _ := strconv.Atoi(n)
		return at
	case "18000":
		return portOf(r.controlPlane().Addr())
	case "18001":
		return portOf(r.controlPlane().ServeREST())
	}
	r.T.Fatalf("examples: nothing is known of port %s", port)
	return 0
}

func (r *Rig) tls(name string) int {
	r.T.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.T.Fatal(err)
	}
	cert := origin.Certificate(r.T, name)
	r.Roots.AddCert(cert.Leaf)
	return int(origin.ServeTLS(r.T, ln, name, cert).Addr().Port())
}

// nobody returns a port on which nobody listens, and nobody can until the test ends: it is bound.
func nobody(t testing.TB) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return at.(*unix.SockaddrInet4).Port
}

// ownAdmin is for examples that have no administration interface.
const ownAdmin = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n"

// Start runs a proxy on a configuration that was prepared: the envoy at the path, or Meshtap where that is "".
func (r *Rig) Start(text, envoy string, args ...string) {
	r.T.Helper()
	if !strings.Contains(text, "\nadmin:") {
		text = ownAdmin + text
	}
	r.Envoy = envoy != ""
	r.Proxy = sidecar.Run(r.T, sidecar.Options{Bootstrap: text, Envoy: envoy, Args: args})
	r.Admin = r.Proxy.Admin()
	if r.ControlPlane != nil {
		r.serveResources()
	}
	r.Proxy.Ready()
	r.Relisten()
}

// Has reports whether there was a listener of this name when the proxy was asked last.
func (r *Rig) Has(listener string) bool { return r.known()[listener] != "" }

// Relisten asks the proxy for its listeners again.
func (r *Rig) Relisten() {
	l := r.Admin.Listeners()
	r.listeners.Store(&l)
}

func (r *Rig) known() map[string]string { return *r.listeners.Load() }

// Addr returns where a listener is; "" means the only one, or the one called http.
func (r *Rig) Addr(listener string) string {
	r.T.Helper()
	if listener == "" {
		listener = "http"
		for name := range r.known() {
			if len(r.known()) == 1 {
				listener = name
			}
		}
	}
	addr := r.known()[listener]
	if addr == "" {
		r.T.Fatalf("examples: there is no listener %q among %v", listener, r.known())
	}
	return addr
}

// Dial connects to a listener.
func (r *Rig) Dial(listener string) net.Conn {
	r.T.Helper()
	c, err := net.DialTimeout("tcp", r.Addr(listener), sidecar.Hang)
	if err != nil {
		r.T.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(sidecar.Hang)); err != nil {
		r.T.Fatal(err)
	}
	r.T.Cleanup(func() { c.Close() })
	return c
}

// DialTLS connects to a listener as a TLS client that asks for a name.
func (r *Rig) DialTLS(listener, name string) *tls.Conn {
	r.T.Helper()
	return tls.Client(r.Dial(listener), &tls.Config{ServerName: name, RootCAs: r.Roots})
}

// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/meshtap/meshtap/xds/resource"
)

// Parse reads a mesh.yaml. file is its name in messages. The error is an *Invalid.
func Parse(file string, text []byte) (*Mesh, error) {
	d := &document{file: file, places: map[string]position{}, hurt: map[string]bool{}}
	m := &Mesh{}
	if d.read(text, m) {
		setDefaults(m)
		c := checker{document: d, mesh: m, owners: map[string]string{}}
		c.check()
	}
	if err := d.invalid(); err != nil {
		return nil, err
	}
	return m, nil
}

func setDefaults(m *Mesh) {
	if m.Outbound == (Address{}) {
		m.Outbound.IP = netip.MustParseAddrPort("127.0.0.1:15001")
	}
	for _, s := range m.Services {
		if s.Protocol == "" {
			s.Protocol = protocolHTTP
		}
	}
}

// checker looks at what the types cannot say: what fits together, and what names something that is there.
type checker struct {
	*document
	mesh *Mesh
	// owners leads from what may be there once, with what it is, to the path that has it.
	owners map[string]string
}

func (c *checker) check() {
	names := c.mesh.names()
	if len(names) == 0 && !c.hurt[""] && !c.hurt["services"] {
		c.fail("services", "services must hold at least one service", "")
	}
	for _, name := range names {
		c.service(name)
	}
	c.clusterNames()
	c.listeners()
}

// once reports a value that something else within the same has, too.
func (c *checker) once(within, what, value, path string) {
	key := within + " " + what + " " + value
	if owner, taken := c.owners[key]; taken {
		c.fail(path, fmt.Sprintf("%s %q is taken by %s", what, value, owner), "")
		return
	}
	c.owners[key] = path
}

// word checks a value that is one of a few words.
func (c *checker) word(path, value string, allowed ...string) {
	if slices.Contains(allowed, value) {
		return
	}
	c.fail(path, fmt.Sprintf("%s must be one of %s, not %q", label(path), strings.Join(allowed, ", "), value), didYouMean(value, allowed))
}

// required reports a field that is not there.
func (c *checker) required(path string, there bool) {
	if !there && !c.hurt[path] && !c.hurt[parent(path)] {
		c.fail(path, label(path)+" is required", "")
	}
}

// positive reports a number or duration that is given as 0.
func (c *checker) positive(path string, value any) {
	zero := false
	switch v := value.(type) {
	case Duration:
		_, given := c.places[path]
		zero = given && v == 0
	case uint16:
		_, given := c.places[path]
		zero = given && v == 0
	case *uint32:
		zero = v != nil && *v == 0
	}
	if zero && !c.hurt[path] {
		c.fail(path, label(path)+" must be more than 0", "")
	}
}

// exclusive reports two fields that may not stand together.
func (c *checker) exclusive(path, a string, hasA bool, b string, hasB bool) {
	if hasA && hasB {
		c.fail(join(path, b), fmt.Sprintf("%s and %s exclude each other", a, b), "")
	}
}

var (
	serviceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	versionName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?$`)
	// As in Envoy, a * stands at one end, behind or before a dot or dash, or alone.
	domainName = regexp.MustCompile(`^\*$|^(\*[.-])?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?$|^[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?[.-]\*$`)
	hostName   = regexp.MustCompile(`^[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,251}[a-zA-Z0-9_])?\.?$`)
	headerName = regexp.MustCompile("^[a-z0-9!#$%&'*+.^_|~`-]+$")
	methodName = regexp.MustCompile(`^[A-Z]+$`)
)

func (c *checker) service(name string) {
	s, path := c.mesh.Services[name], join("services", name)
	if !serviceName.MatchString(name) {
		c.fail(path, fmt.Sprintf("a service's name must be 1 to 63 of a-z, 0-9 and -, not %q", name), "other names belong in domains")
	}
	c.word(join(path, "protocol"), s.Protocol, protocolHTTP, protocolTCP)
	c.positive(join(path, "port"), s.Port)
	if s.Port != 0 {
		c.once("", "port", strconv.Itoa(int(s.Port)), join(path, "port"))
	}
	if s.tcp() {
		c.tcp(path, s)
	} else {
		c.domains(path, name, s)
	}
	c.exclusive(path, "endpoints", s.Endpoints != nil, "dns", s.DNS != nil)
	c.endpoints(path, s)
	if s.DNS != nil {
		c.dns(join(path, "dns"), s.DNS)
	}
	if s.HealthCheck != nil {
		c.healthCheck(join(path, "health_check"), s)
	}
	c.policy(join(path, "policy"), &s.Policy)
	for i := range s.Routes {
		c.route(fmt.Sprintf("%s.routes[%d]", path, i), name, &s.Routes[i])
	}
}

// tcp checks what a service that is not HTTP needs, and cannot have.
func (c *checker) tcp(path string, s *Service) {
	c.required(join(path, "port"), s.Port != 0 || !s.hosted())
	if len(s.Routes) > 0 {
		c.fail(join(path, "routes"), "routes are for protocol http: a tcp service is reached by its port", "")
	}
	if len(s.Domains) > 0 {
		c.fail(join(path, "domains"), "domains are for protocol http: a tcp service is reached by its port", "")
	}
}

func (c *checker) domains(path, name string, s *Service) {
	if len(s.Domains) > 0 && !s.callable() {
		c.fail(join(path, "domains"), "domains are for a service that can be called: it needs endpoints, dns or routes", "")
		return
	}
	for i, domain := range s.domains(name) {
		at := join(path, "domains") + fmt.Sprintf("[%d]", i)
		if c.hurt[at] {
			continue
		}
		if len(s.Domains) == 0 {
			at = path
		} else if len(domain) > 253 || !domainName.MatchString(domain) {
			c.fail(at, fmt.Sprintf("%q is not a domain; write a name in lower case, without a port, such as orders.shop, *.shop or *", domain), "")
		}
		c.once("", "domain", domain, at)
	}
}

func (c *checker) endpoints(path string, s *Service) {
	var proxied int
	for i := range s.Endpoints {
		if s.Endpoints[i].App != (Address{}) {
			proxied++
		}
	}
	for i := range s.Endpoints {
		e, at := &s.Endpoints[i], fmt.Sprintf("%s.endpoints[%d]", path, i)
		c.required(join(at, "address"), e.Address != (Address{}))
		if e.Address != (Address{}) {
			c.once(path, "address", e.Address.String(), join(at, "address"))
			if e.Address == e.App {
				c.fail(join(at, "app"), fmt.Sprintf("%s.app must differ from its address, where the proxy listens", label(at)), "")
			}
		}
		switch {
		case e.App == (Address{}) && e.Node != "":
			c.fail(join(at, "node"), "node names the proxy of an endpoint, which needs app: where the application listens", "")
		case e.App != (Address{}) && e.Node == "" && proxied > 1 && !c.hurt[join(at, "node")]:
			c.fail(at, "node is required where several endpoints have an app: it says which proxy is whose", "")
		case e.Node != "":
			c.once(path, "node", e.Node, join(at, "node"))
		}
		if e.Version != "" && !versionName.MatchString(e.Version) {
			c.fail(join(at, "version"), fmt.Sprintf("a version must be 1 to 63 of letters, digits, . _ and -, not %q", e.Version), "")
		}
		c.positive(join(at, "weight"), e.Weight)
	}
}

func (c *checker) dns(path string, d *DNS) {
	c.required(join(path, "host"), d.Host != "")
	if d.Host != "" && !hostName.MatchString(d.Host) {
		c.fail(join(path, "host"), fmt.Sprintf("%q is not a name to look up, such as orders.internal", d.Host), "")
	}
	c.positive(join(path, "port"), d.Port)
	if _, given := c.places[join(path, "port")]; !given {
		c.required(join(path, "port"), false)
	}
	if _, given := c.places[join(path, "refresh")]; given && !c.hurt[join(path, "refresh")] && time.Duration(d.Refresh) < time.Second {
		c.fail(join(path, "refresh"), label(join(path, "refresh"))+" must be at least 1s", "")
	}
}

func (c *checker) healthCheck(path string, s *Service) {
	h := s.HealthCheck
	if !s.hosted() {
		c.fail(path, "health_check is for a service with endpoints or dns", "")
	}
	if h.Path != "" && h.Path[0] != '/' {
		c.fail(join(path, "path"), label(join(path, "path"))+" must begin with /", "")
	}
	if h.Path != "" && s.tcp() {
		c.fail(join(path, "path"), "a path is for protocol http; without one, the check connects", "")
	}
	c.positive(join(path, "interval"), h.Interval)
	c.positive(join(path, "timeout"), h.Timeout)
	c.positive(join(path, "unhealthy_after"), h.UnhealthyAfter)
	c.positive(join(path, "healthy_after"), h.HealthyAfter)
}

// clusterNames finds services and versions whose clusters would have the same name.
func (c *checker) clusterNames() {
	owners := map[string]string{}
	take := func(cluster, path, what string) {
		if owner, taken := owners[cluster]; taken && owner != what {
			c.fail(path, fmt.Sprintf("%s and %s would both be cluster %q; rename one of them", owner, what, cluster), "")
		}
		owners[cluster] = what
	}
	for _, name := range c.mesh.names() {
		path := join("services", name)
		take(name, path, fmt.Sprintf("service %q", name))
		take(appCluster(name), path, fmt.Sprintf("the application of %q", name))
	}
	for _, name := range c.mesh.names() {
		for i, e := range c.mesh.Services[name].Endpoints {
			if e.Version != "" {
				take(versionCluster(name, e.Version), fmt.Sprintf("%s.endpoints[%d].version", join("services", name), i),
					fmt.Sprintf("version %q of %q", e.Version, name))
			}
		}
	}
}

// listeners finds addresses that one proxy would have to bind twice.
func (c *checker) listeners() {
	seen := map[Address]bool{}
	for _, name := range c.mesh.names() {
		s, path := c.mesh.Services[name], join("services", name)
		out, at := s.Outbound, join(path, "outbound")
		if out == (Address{}) {
			out, at = c.mesh.Outbound, "outbound"
		}
		if !seen[out] {
			seen[out] = true
			c.ports(at, out)
		}
		for i, e := range s.Endpoints {
			if e.App != (Address{}) && e.Address == out {
				c.fail(fmt.Sprintf("%s.endpoints[%d].address", path, i), fmt.Sprintf("address %s is outbound, too: one proxy cannot listen there for both", out), "")
			}
		}
	}
}

// ports compares an outbound address with the ports of services, which are opened on the same IP address.
func (c *checker) ports(at string, out Address) {
	for _, name := range c.mesh.names() {
		switch port := c.mesh.Services[name].Port; {
		case port == 0:
		case out.Pipe != "":
			c.fail(at, fmt.Sprintf("outbound must be an IP address and a port: port %d of service %q is opened beside it", port, name), "")
			return
		case port == out.IP.Port():
			c.fail(join(join("services", name), "port"), fmt.Sprintf("port %d is that of %s %s", port, at, out), "")
		}
	}
}

// regex checks an expression as a proxy will, whose limit for the compiled program is that of Meshtap.
func (c *checker) regex(path, text string) {
	parsed, err := syntax.Parse(text, syntax.Perl)
	var prog *syntax.Prog
	if err == nil {
		prog, err = syntax.Compile(parsed.Simplify())
	}
	if err != nil {
		c.fail(path, fmt.Sprintf("%s: %s", label(path), strings.TrimPrefix(err.Error(), "error parsing regexp: ")), "the syntax is RE2's")
		return
	}
	if most := resource.DefaultLimits().RegexProgram; len(prog.Inst) > most {
		c.fail(path, fmt.Sprintf("%s compiles to %d instructions, of which %d are allowed", label(path), len(prog.Inst), most), "")
	}
}

// known reports a name of a service that is not there, or that has nothing to call.
func (c *checker) known(path, name string) *Service {
	s := c.mesh.Services[name]
	switch {
	case s == nil:
		c.fail(path, fmt.Sprintf("there is no service %q", name), didYouMean(name, slices.Collect(maps.Keys(c.mesh.Services))))
		return nil
	case !s.hosted():
		c.fail(path, fmt.Sprintf("service %q has neither endpoints nor dns to call", name), "")
		return nil
	case s.tcp():
		c.fail(path, fmt.Sprintf("service %q is of protocol tcp", name), "")
		return nil
	}
	return s
}

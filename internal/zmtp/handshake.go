// SPDX-License-Identifier: Apache-2.0

package zmtp

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Config is how a connection begins.
type Config struct {
	// SocketType is ours, such as PUB; Peers are those that may be at the other end.
	SocketType string
	Peers      []string
	// User is "" for the mechanism NULL. Otherwise it is PLAIN: the server demands User and Password, the other side shows them.
	User, Password string
	// Curve is nil for these two mechanisms. Otherwise it is CURVE, and there is no User.
	Curve *Curve
	// Server is the side of PLAIN and CURVE that lets the other one in.
	Server bool
	// MaxFrame bounds what CURVE takes for one frame after the handshake, in bytes.
	MaxFrame int
}

func (c *Config) mechanism() string {
	switch {
	case c.Curve != nil:
		return "CURVE"
	case c.User != "":
		return "PLAIN"
	}
	return "NULL"
}

const (
	greetingSize  = 64
	mechanismSize = 20
)

// Greeting is what a peer says first.
type Greeting struct {
	Major, Minor byte
	Mechanism    string
	Server       bool
}

// AppendGreeting appends the greeting of ZMTP 3.1.
func AppendGreeting(dst []byte, mechanism string, server bool) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, greetingSize)...)
	g := dst[at:]
	g[0], g[8], g[9], g[10], g[11] = 0xff, 1, 0x7f, 3, 1
	copy(g[12:], mechanism)
	if server {
		g[32] = 1
	}
	return dst
}

// ParseGreeting reads a greeting of 64 bytes.
func ParseGreeting(b []byte) (Greeting, error) {
	if len(b) != greetingSize || b[0] != 0xff || b[9] != 0x7f {
		return Greeting{}, errors.New("zmtp: the peer does not speak ZMTP")
	}
	g := Greeting{Major: b[10], Minor: b[11], Mechanism: string(bytes.TrimRight(b[12:12+mechanismSize], "\x00")), Server: b[32] == 1}
	if g.Major < 3 {
		return g, fmt.Errorf("zmtp: the peer speaks ZMTP %d.%d, 3.0 or later is needed", g.Major, g.Minor)
	}
	return g, nil
}

// RefusedError is what one side tells of a handshake that it does not go on with.
type RefusedError struct{ Reason string }

// Error returns the reason.
func (e *RefusedError) Error() string { return "zmtp: the peer refuses: " + e.Reason }

// Handshake opens a connection. It returns how the peer greets, and where frames are read and written from then on: rw, but for
// CURVE, which wants what is written at a time to be whole frames. It reads no byte beyond the handshake. The caller sets
// deadlines.
func Handshake(rw io.ReadWriter, c Config) (io.ReadWriter, Greeting, error) {
	mechanism := c.mechanism()
	server := c.Server && mechanism != "NULL"
	if _, err := rw.Write(AppendGreeting(nil, mechanism, server)); err != nil {
		return nil, Greeting{}, err
	}
	g, err := readGreeting(rw)
	if err != nil {
		return nil, g, err
	}
	switch {
	case g.Mechanism != mechanism:
		return nil, g, fmt.Errorf("zmtp: the peer wants the mechanism %q, this side %s", g.Mechanism, mechanism)
	case server && g.Server: // libzmq never says that it is one
		return nil, g, fmt.Errorf("zmtp: exactly one side of %s must be the server", g.Mechanism)
	}
	h := handshake{rw: rw, c: c}
	switch {
	case c.Curve != nil && c.Server:
		rw, err = h.curveServer()
	case c.Curve != nil:
		rw, err = h.curveClient()
	case c.User == "":
		err = h.null()
	case c.Server:
		err = h.plainServer()
	default:
		err = h.plainClient()
	}
	return rw, g, err
}

// readGreeting reads the peer's greeting.
func readGreeting(r io.Reader) (Greeting, error) {
	var b [greetingSize]byte
	// The version first: what is not ZMTP 3 may never send all of a greeting.
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return Greeting{}, unexpected(err)
	}
	if b[0] != 0xff {
		return Greeting{}, errors.New("zmtp: the peer does not speak ZMTP")
	}
	if _, err := io.ReadFull(r, b[1:]); err != nil {
		return Greeting{}, unexpected(err)
	}
	return ParseGreeting(b[:])
}

type handshake struct {
	rw io.ReadWriter
	c  Config
}

func (h *handshake) send(name string, data []byte) error {
	_, err := h.rw.Write(AppendCommand(nil, name, data))
	return err
}

// expect reads the next command, which must have the name.
func (h *handshake) expect(name string) ([]byte, error) {
	f, err := ReadFrame(h.rw, nil, MaxFrame)
	if err != nil {
		return nil, unexpected(err)
	}
	if !f.Command {
		return nil, fmt.Errorf("zmtp: a message where %s was expected", name)
	}
	got, data, err := ParseCommand(f.Body)
	if err != nil {
		return nil, err
	}
	if got == Error && len(data) > 0 && int(data[0]) == len(data)-1 {
		return nil, &RefusedError{Reason: fmt.Sprintf("%q", data[1:])}
	}
	if got != name {
		return nil, fmt.Errorf("zmtp: the command %q where %s was expected", got, name)
	}
	return data, nil
}

// refuse tells the peer why the handshake ends, and returns that.
func (h *handshake) refuse(reason string) error {
	if err := h.send(Error, append([]byte{byte(len(reason))}, reason...)); err != nil {
		return err
	}
	return errors.New("zmtp: refused the peer: " + reason)
}

func (h *handshake) metadata() []byte {
	return AppendProperty(AppendProperty(nil, "Socket-Type", h.c.SocketType), "Identity", "")
}

// compatible holds the peer's metadata against what is allowed.
func (h *handshake) compatible(data []byte) error {
	p, err := ParseMetadata(data)
	if err != nil {
		return err
	}
	if typ := p["socket-type"]; !slices.Contains(h.c.Peers, typ) {
		return h.refuse(fmt.Sprintf("a %s does not go with a %.16q", h.c.SocketType, typ))
	}
	return nil
}

func (h *handshake) null() error {
	if err := h.send(Ready, h.metadata()); err != nil {
		return err
	}
	data, err := h.expect(Ready)
	if err != nil {
		return err
	}
	return h.compatible(data)
}

func (h *handshake) plainClient() error {
	hello := append([]byte{byte(len(h.c.User))}, h.c.User...)
	hello = append(append(hello, byte(len(h.c.Password))), h.c.Password...)
	if err := h.send(Hello, hello); err != nil {
		return err
	}
	if _, err := h.expect(Welcome); err != nil {
		return err
	}
	if err := h.send(Initiate, h.metadata()); err != nil {
		return err
	}
	data, err := h.expect(Ready)
	if err != nil {
		return err
	}
	return h.compatible(data)
}

func (h *handshake) plainServer() error {
	data, err := h.expect(Hello)
	if err != nil {
		return err
	}
	user, password, err := ParseHello(data)
	if err != nil {
		return err
	}
	right := subtle.ConstantTimeCompare(user, []byte(h.c.User)) & subtle.ConstantTimeCompare(password, []byte(h.c.Password))
	if right != 1 {
		return h.refuse("invalid user or password")
	}
	if err := h.send(Welcome, nil); err != nil {
		return err
	}
	if data, err = h.expect(Initiate); err != nil {
		return err
	}
	if err := h.compatible(data); err != nil {
		return err
	}
	return h.send(Ready, h.metadata())
}

// ParseHello reads the user and the password of PLAIN's HELLO.
func ParseHello(data []byte) (user, password []byte, err error) {
	if user, data, err = short(data); err != nil {
		return nil, nil, err
	}
	if password, data, err = short(data); err != nil || len(data) > 0 {
		return nil, nil, errors.New("zmtp: not a HELLO")
	}
	return user, password, nil
}

// short reads a text behind a length of one byte.
func short(b []byte) (text, rest []byte, err error) {
	if len(b) == 0 || int(b[0]) > len(b)-1 {
		return nil, nil, errors.New("zmtp: a text that is cut")
	}
	n := 1 + int(b[0])
	return b[1:n], b[n:], nil
}

// AppendProperty appends a property of metadata.
func AppendProperty(dst []byte, name, value string) []byte {
	dst = append(append(dst, byte(len(name))), name...)
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(value))), value...)
}

// ParseMetadata reads the properties of a READY or INITIATE. Their names do not distinguish case and are in lower case.
func ParseMetadata(b []byte) (map[string]string, error) {
	out := map[string]string{}
	for len(b) > 0 {
		name, rest, err := short(b)
		if err != nil || len(name) == 0 || len(rest) < 4 {
			return nil, errors.New("zmtp: metadata that are cut")
		}
		n := binary.BigEndian.Uint32(rest)
		if rest = rest[4:]; uint64(n) > uint64(len(rest)) {
			return nil, errors.New("zmtp: metadata that are cut")
		}
		out[string(bytes.ToLower(name))] = string(rest[:n])
		b = rest[n:]
	}
	return out, nil
}

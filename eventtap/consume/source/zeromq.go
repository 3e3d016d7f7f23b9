// SPDX-License-Identifier: Apache-2.0

package source

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/meshtap/meshtap/eventtap/consume"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/zmtp"
)

// zeroMQ reads from a ZeroMQ sink that listens. See package eventtap/sink/zeromq for the messages.
type zeroMQ struct {
	pattern, address, prefix string
	login                    zmtp.Config // who this side is and whom it trusts
}

// partners are the socket types that ours may be connected to.
var partners = map[string][]string{"SUB": {"PUB", "XPUB"}, "PULL": {"PUSH"}, "DEALER": {"DEALER", "ROUTER"}}

func newZeroMQ(pattern, address string, o Options) (*zeroMQ, error) {
	u, err := url.Parse("tcp://" + address)
	if err != nil || u.Path+u.RawQuery+u.Fragment != "" || u.User != nil && u.User.Username() == "" {
		return nil, errors.New("source: ZeroMQ: the address is no [USER:PASSWORD@]HOST:PORT") // err shows the password
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil {
		return nil, fmt.Errorf("source: ZeroMQ: %w", err)
	}
	z := &zeroMQ{pattern: strings.ToUpper(pattern), address: u.Host, prefix: o.Prefix}
	z.login.User = u.User.Username()
	z.login.Password, _ = u.User.Password()
	if max(len(z.login.User), len(z.login.Password)) > maxPlain {
		return nil, fmt.Errorf("source: ZeroMQ: a user and a password have at most %d bytes", maxPlain)
	}
	if o.Curve == nil {
		return z, nil
	}
	if u.User != nil {
		return nil, errors.New("source: ZeroMQ: a user and the keys of CURVE exclude each other")
	}
	z.login.Curve = &zmtp.Curve{}
	if z.login.Curve.Server, err = zmtp.ParseKey(o.Curve.Server); err != nil {
		return nil, fmt.Errorf("source: ZeroMQ: the key of the server: %w", err)
	}
	if z.login.Curve.Secret, err = zmtp.ParseKey(o.Curve.Secret); err != nil {
		return nil, fmt.Errorf("source: ZeroMQ: the secret key: %w", err)
	}
	return z, nil
}

// maxPlain is what the mechanism PLAIN has room for.
const maxPlain = 255

// Close does nothing: a connection ends with Read.
func (*zeroMQ) Close() error { return nil }

// maxParts bounds a message, and maxPart each of its parts.
const maxParts, maxPart = 5, 2 * event.MaxSize

// Read implements consume.Source. It follows until the sink ends the connection.
func (z *zeroMQ) Read(ctx context.Context, each func(*consume.Message) error) error {
	d := net.Dialer{Timeout: dialTime}
	c, err := d.DialContext(ctx, "tcp", z.address)
	if err != nil {
		return fmt.Errorf("source: ZeroMQ: %w", err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	err = z.talk(&zeroConn{Conn: c}, each)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// zeroConn is a connection on which acknowledgements and answers are written by any goroutine.
type zeroConn struct {
	net.Conn
	rw io.ReadWriter // of frames
	mu sync.Mutex    // of whoever writes
}

// send sends whole frames.
func (c *zeroConn) send(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.rw.Write(b)
	return err
}

func (z *zeroMQ) talk(c *zeroConn, each func(*consume.Message) error) error {
	if err := c.SetDeadline(time.Now().Add(dialTime)); err != nil {
		return err
	}
	how := z.login
	how.SocketType, how.Peers, how.MaxFrame = z.pattern, partners[z.pattern], maxPart
	rw, greeting, err := zmtp.Handshake(c, how)
	if c.rw = rw; err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err == nil && z.pattern == "SUB" {
		if greeting.Minor > 0 {
			err = c.send(zmtp.AppendCommand(nil, zmtp.Subscribe, []byte(z.prefix)))
		} else { // ZMTP 3.0
			err = c.send(zmtp.AppendFrame(nil, append([]byte{1}, z.prefix...), false))
		}
	}
	if err != nil {
		return fmt.Errorf("source: ZeroMQ: %w", err)
	}
	order := &lowWater[[2][]byte]{done: func(n [2][]byte) {
		_ = c.send(zmtp.AppendFrame(zmtp.AppendFrame(nil, n[0], true), n[1], false)) // what is not acknowledged comes again
	}}
	for {
		parts, err := c.receive()
		if err != nil {
			return fmt.Errorf("source: ZeroMQ: %w", err)
		}
		m := &consume.Message{}
		if z.pattern == "DEALER" {
			if len(parts) < 2 || len(parts[1]) != 8 {
				return fmt.Errorf("source: ZeroMQ: a message without a session and a number")
			}
			m.Seq = binary.BigEndian.Uint64(parts[1])
			m.Done = order.add([2][]byte(parts[:2]))
			parts = parts[2:]
		}
		if len(parts) != 3 {
			return fmt.Errorf("source: ZeroMQ: a message of %d parts, want a topic, a media type and an event", len(parts))
		}
		m.Type, m.Data = string(parts[1]), parts[2]
		if err := each(m); err != nil {
			return err
		}
	}
}

// receive reads one message, and answers to signs of life on the way.
func (c *zeroConn) receive() (parts [][]byte, err error) {
	for {
		f, err := zmtp.ReadFrame(c.rw, nil, maxPart)
		if err != nil {
			return nil, err
		}
		if f.Command {
			name, data, err := zmtp.ParseCommand(f.Body)
			if err != nil {
				return nil, err
			}
			if name == zmtp.Ping {
				what, err := zmtp.ParsePing(data)
				if err == nil {
					err = c.send(zmtp.AppendCommand(nil, zmtp.Pong, what))
				}
				if err != nil {
					return nil, err
				}
			}
			continue
		}
		if len(parts) == maxParts {
			return nil, fmt.Errorf("a message of more than %d parts", maxParts)
		}
		if parts = append(parts, bytes.Clone(f.Body)); !f.More {
			return parts, nil
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

// Package bus runs a NATS server with JetStream inside meshtapd and makes the stream that events go to. Nothing outside the
// process can reach it unless it is told to listen, and then only with a token, which somebody has to choose before it
// listens beyond the loopback interface; everything else that a NATS server can open (websocket, MQTT, leaf nodes,
// clusters, monitoring, profiling) stays closed, since that is where its security reports come from. JetStream flushes to the disk every two minutes by default: what was
// acknowledged since then survives the end of the process, and not that of the machine.
package bus

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// Stream and Subject are where proxies publish events.
const (
	Stream  = "MESHTAP"
	Subject = "meshtap.events.>"
)

const (
	// tokenFile is where the token lies below Dir.
	tokenFile = "token"
	minToken  = 16
)

// Config is how a Bus is run.
type Config struct {
	// Dir holds the messages and the token; it is made where it does not exist, for its owner only.
	Dir string
	// Listen is an address and port, of which 0 is any that is free; "" does not listen. Beyond the loopback interface it
	// needs a TokenFile.
	Listen string
	// TokenFile holds the token that clients show, at least 16 bytes; "" makes one below Dir.
	TokenFile string
	// MaxBytes bounds the stream. The oldest events go first.
	MaxBytes int64
	// Sync is the time between two flushes to the disk; 0 flushes each message.
	Sync time.Duration
	Log  *zap.Logger
}

// Bus is a running server.
type Bus struct {
	server *server.Server
	conn   *nats.Conn
	stream jetstream.Stream
	token  string
	file   string   // of the token
	lock   *os.File // held while the server has Dir
}

// startTime bounds the start.
const startTime = 10 * time.Second

// Start runs a server and makes the stream, or takes the one that is there.
func Start(ctx context.Context, c Config) (*Bus, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	b := &Bus{file: c.TokenFile}
	var err error
	if b.lock, err = lock(filepath.Join(c.Dir, "lock")); err != nil {
		return nil, fmt.Errorf("bus: %s: %w", c.Dir, err)
	}
	if err := b.start(ctx, c); err != nil {
		b.Close()
		return nil, fmt.Errorf("bus: %w", err)
	}
	return b, nil
}

// lock takes a directory for this process: the server does not look whether another one writes there.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errors.New("in use by another process; end that, or take another directory")
		}
		return nil, err
	}
	return f, nil
}

func (b *Bus) start(ctx context.Context, c Config) (err error) {
	if b.file != "" {
		b.token, err = read(b.file)
	} else {
		b.file = filepath.Join(c.Dir, tokenFile)
		b.token, err = token(b.file)
	}
	if err != nil {
		return err
	}
	opts, err := options(c, b.token)
	if err != nil {
		return err
	}
	if b.server, err = server.NewServer(opts); err != nil {
		return err
	}
	b.server.SetLoggerV2(logger{c.Log.Sugar()}, false, false, false)
	b.server.Start()
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	return b.connect(ctx, c)
}

func options(c Config, token string) (*server.Options, error) {
	o := &server.Options{
		ServerName: "meshtapd", DontListen: true, NoSigs: true, NoLog: true, DisableJetStreamBanner: true,
		Authorization: token, MaxConn: 1024, MaxPayload: 1 << 20,
		JetStream: true, StoreDir: c.Dir, JetStreamMaxStore: 2*c.MaxBytes + 64<<20, JetStreamMaxMemory: 64 << 20,
		SyncInterval: c.Sync, SyncAlways: c.Sync == 0,
	}
	if c.Listen == "" {
		return o, nil
	}
	ap, err := netip.ParseAddrPort(c.Listen)
	if err != nil {
		return nil, fmt.Errorf("%q is no address; write 127.0.0.1:4222", c.Listen)
	}
	if !ap.Addr().Unmap().IsLoopback() {
		if c.TokenFile == "" {
			return nil, fmt.Errorf("%s can be reached from other machines: choose a token and name its file, or use a loopback address", c.Listen)
		}
		c.Log.Warn("the bus can be reached from other machines, and there is no TLS: the token and the events can be read on the way", zap.String("address", c.Listen))
	}
	ln, err := net.Listen("tcp", c.Listen) // the server would only say that it does not start
	if err != nil {
		return nil, fmt.Errorf("%w; end the other process, or take another address", err)
	}
	ln.Close()
	o.DontListen, o.Host, o.Port = false, ap.Addr().String(), int(ap.Port())
	if o.Port == 0 {
		o.Port = server.RANDOM_PORT
	}
	return o, nil
}

// connect waits for the server and makes the stream.
func (b *Bus) connect(ctx context.Context, c Config) error {
	deadline, _ := ctx.Deadline()
	if !b.server.ReadyForConnections(time.Until(deadline)) {
		return errors.New("the NATS server does not start")
	}
	var err error
	if b.conn, err = nats.Connect("", nats.InProcessServer(b.server), nats.Token(b.token), nats.Name("meshtapd")); err != nil {
		return err
	}
	js, err := jetstream.New(b.conn)
	if err != nil {
		return err
	}
	b.stream, err = js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: Stream, Subjects: []string{Subject}, MaxBytes: c.MaxBytes, Discard: jetstream.DiscardOld,
	})
	return err
}

// read reads the token in a file.
func read(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	t := strings.TrimSpace(string(b))
	if len(t) < minToken || strings.ContainsAny(t, " \t\r\n") {
		return "", fmt.Errorf("%s must hold a token: one word of at least %d bytes", path, minToken)
	}
	return t, nil
}

// token reads the token in a file, or writes a new one there.
func token(path string) (string, error) {
	t, err := read(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return t, err
	}
	raw := make([]byte, 32)
	rand.Read(raw) // it never fails (crypto/rand)
	t = base64.RawURLEncoding.EncodeToString(raw)
	return t, os.WriteFile(path, []byte(t+"\n"), 0o600)
}

// URL is where clients connect, "" where the server does not listen.
func (b *Bus) URL() string {
	if b.server.Addr() == nil {
		return ""
	}
	return "nats://" + b.server.Addr().String()
}

// Token is what clients show.
func (b *Bus) Token() string { return b.token }

// TokenFile is a file that holds the token.
func (b *Bus) TokenFile() string { return b.file }

// Info is the state of the stream.
type Info struct {
	Stream   string `json:"stream"`
	URL      string `json:"url,omitempty"`
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
	First    uint64 `json:"first"`
	Last     uint64 `json:"last"`
	Clients  int    `json:"clients"`
}

// Info returns the state of the stream.
func (b *Bus) Info(ctx context.Context) (Info, error) {
	s, err := b.stream.Info(ctx)
	if err != nil {
		return Info{}, fmt.Errorf("bus: %w", err)
	}
	return Info{
		Stream: Stream, URL: b.URL(), Messages: s.State.Msgs, Bytes: s.State.Bytes, First: s.State.FirstSeq, Last: s.State.LastSeq,
		Clients: b.server.NumClients(),
	}, nil
}

// Close ends the server and gives its directory free.
func (b *Bus) Close() {
	if b.conn != nil {
		b.conn.Close()
	}
	if b.server != nil {
		b.server.Shutdown()
		b.server.WaitForShutdown()
	}
	b.lock.Close() // and with it the lock
}

// logger writes what the server has to say. Its notices are about itself alone, so they are for debugging.
type logger struct{ *zap.SugaredLogger }

// Noticef implements server.Logger.
func (l logger) Noticef(format string, v ...any) { l.Debugf(format, v...) }

// Tracef implements server.Logger.
func (l logger) Tracef(format string, v ...any) { l.Debugf(format, v...) }

// Fatalf implements server.Logger. The server goes down after it, not the process.
func (l logger) Fatalf(format string, v ...any) { l.Errorf(format, v...) }

var _ server.Logger = logger{}

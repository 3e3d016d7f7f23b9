// SPDX-License-Identifier: Apache-2.0

package saved

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// State is a configuration that was in force.
type State struct {
	// Saved is when it was, of the node with the ID Node.
	Saved time.Time `json:"saved"`
	Node  string    `json:"node"`
	// LeftOut names the resources that are not there because they hold secrets, as `listener "a"`.
	LeftOut []string `json:"left_out,omitempty"`
	Groups  []Group  `json:"-"`
}

// Group is what one source has sent of one type. Version is that of the last response.
type Group struct {
	TypeURL, Source, Version string
	Resources                []Resource
}

// Resource is one serialized resource.
type Resource struct {
	Name, Version string
	Raw           []byte
}

// ErrNone says that there is no file.
var ErrNone = errors.New("saved: there is no configuration on disk")

const (
	fileName = "xds-config"
	magic    = "meshtap saved configuration 1\n"
	// maxBytes bounds the file: as much as about a million endpoints.
	maxBytes = 512 << 20
	sumBytes = 2*sha256.Size + 1
	wrapper  = "type.googleapis.com/envoy.service.discovery.v3.Resource"
)

// Path returns the file in a directory.
func Path(dir string) string { return filepath.Join(dir, fileName) }

// Write replaces the file in dir, which is made where it is not there.
func Write(dir string, s *State) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("saved: %w", err)
	}
	f, err := os.CreateTemp(dir, fileName+".*") // with mode 0600
	if err != nil {
		return fmt.Errorf("saved: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = fmt.Errorf("saved: %w", err)
		}
	}()
	if err := encode(f, s); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), Path(dir)); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the new name last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func encode(to io.Writer, s *State) error {
	sum := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(to, sum), 64<<10)
	if _, err := w.WriteString(magic); err != nil {
		return err
	}
	if err := json.NewEncoder(w).Encode(s); err != nil {
		return err
	}
	for _, g := range s.Groups {
		m := &discoverypb.DiscoveryResponse{TypeUrl: g.TypeURL, Nonce: g.Source, VersionInfo: g.Version}
		for _, r := range g.Resources {
			b, err := proto.Marshal(&discoverypb.Resource{
				Name: r.Name, Version: r.Version, Resource: &anypb.Any{TypeUrl: g.TypeURL, Value: r.Raw},
			})
			if err != nil {
				return err
			}
			m.Resources = append(m.Resources, &anypb.Any{TypeUrl: wrapper, Value: b})
		}
		if _, err := protodelim.MarshalTo(w, m); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(to, "%x\n", sum.Sum(nil))
	return err
}

// Read returns what the file in dir holds, ErrNone where there is none. A file that others can read or write is refused:
// whoever could write it would tell this proxy where to send its traffic.
func Read(dir string) (*State, error) {
	f, err := os.Open(Path(dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("saved: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("saved: %w", err)
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("saved: %s has the mode %v; it must be a file that only its owner can read and write (0600)", f.Name(), info.Mode())
	case info.Size() > maxBytes:
		return nil, fmt.Errorf("saved: %s has %d bytes, of which %d are allowed", f.Name(), info.Size(), maxBytes)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("saved: %w", err)
	}
	s, err := decode(b)
	if err != nil {
		return nil, fmt.Errorf("saved: %s %w", f.Name(), err)
	}
	return s, nil
}

var errNotWhole = errors.New("is not whole: its checksum is not that of what it holds")

func decode(b []byte) (*State, error) {
	if !bytes.HasPrefix(b, []byte(magic)) {
		return nil, errors.New("is none of this version's files")
	}
	if len(b) < len(magic)+sumBytes {
		return nil, errNotWhole
	}
	body, tail := b[:len(b)-sumBytes], b[len(b)-sumBytes:]
	sum := sha256.Sum256(body)
	if string(tail) != hex.EncodeToString(sum[:])+"\n" {
		return nil, errNotWhole
	}
	r := bufio.NewReader(bytes.NewReader(body[len(magic):]))
	head, err := r.ReadBytes('\n')
	if err != nil {
		return nil, errNotWhole
	}
	s := &State{}
	if err := json.Unmarshal(head, s); err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	for {
		m := &discoverypb.DiscoveryResponse{}
		err := protodelim.UnmarshalOptions{MaxSize: int64(len(body))}.UnmarshalFrom(r, m)
		if err == io.EOF {
			return s, nil
		}
		if err != nil {
			return nil, fmt.Errorf("cannot be read: %w", err)
		}
		g, err := group(m)
		if err != nil {
			return nil, fmt.Errorf("cannot be read: %w", err)
		}
		s.Groups = append(s.Groups, g)
	}
}

func group(m *discoverypb.DiscoveryResponse) (Group, error) {
	g := Group{TypeURL: m.GetTypeUrl(), Source: m.GetNonce(), Version: m.GetVersionInfo()}
	for _, a := range m.GetResources() {
		w := &discoverypb.Resource{}
		if err := proto.Unmarshal(a.GetValue(), w); err != nil {
			return g, err
		}
		g.Resources = append(g.Resources, Resource{w.GetName(), w.GetVersion(), w.GetResource().GetValue()})
	}
	return g, nil
}

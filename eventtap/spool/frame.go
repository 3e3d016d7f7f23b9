// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The frame of a record: magic, length of the payload, CRC-32C of what follows and of the length, number, payload.
// Numbers are little-endian.
const (
	frameSize = 4 + 4 + 4 + 8
	sealSize  = 16 // what AES-GCM adds

	// MaxRecord is the size of the largest record, in bytes.
	MaxRecord = 64 << 10
)

var (
	frameMagic = []byte{0x9e, 'M', 'T', 0xd7} // neither UTF-8 nor the beginning of a protobuf message
	headMagic  = []byte("MTSPOOL1")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// appendFrame appends a record that is stored as it is.
func appendFrame(dst []byte, seq uint64, payload []byte) []byte {
	at := len(dst)
	dst = append(openFrame(dst, seq), payload...)
	closeFrame(dst[at:])
	return dst
}

func openFrame(dst []byte, seq uint64) []byte {
	dst = append(append(dst, frameMagic...), 0, 0, 0, 0, 0, 0, 0, 0)
	return binary.LittleEndian.AppendUint64(dst, seq)
}

// closeFrame writes the length and the sum of the frame that is all of b.
func closeFrame(b []byte) {
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-frameSize))
	binary.LittleEndian.PutUint32(b[8:], frameSum(b))
}

func frameSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[4:8], castagnoli), castagnoli, b[12:])
}

// frame is what stands at one place of a segment.
type frame struct {
	seq     uint64
	payload []byte // as it is stored
	size    int
}

// errShort says that there are fewer bytes than the frame seems to have.
var errShort = errors.New("the frame goes on behind the end")

var errBroken = errors.New("no frame, or a broken one")

// parseFrame reads the frame at the beginning of b.
func parseFrame(b []byte) (frame, error) {
	if len(b) < frameSize {
		if bytes.HasPrefix(frameMagic, b[:min(len(b), 4)]) || len(b) >= 4 && bytes.HasPrefix(b, frameMagic) {
			return frame{}, errShort
		}
		return frame{}, errBroken
	}
	n := int(binary.LittleEndian.Uint32(b[4:]))
	if !bytes.HasPrefix(b, frameMagic) || n > MaxRecord+sealSize {
		return frame{}, errBroken
	}
	if len(b) < frameSize+n {
		return frame{}, errShort
	}
	b = b[:frameSize+n]
	if binary.LittleEndian.Uint32(b[8:]) != frameSum(b) {
		return frame{}, errBroken
	}
	return frame{seq: binary.LittleEndian.Uint64(b[12:]), payload: b[frameSize:], size: len(b)}, nil
}

// The head of a segment: magic, the number of its first record, salt, name of the key, length of the tag, tag, CRC-32C.
const (
	headSize = 128
	atBase   = 8
	atSalt   = 16
	saltSize = 16
	atKey    = atSalt + saltSize
	keyName  = 8
	atTag    = atKey + keyName
	atSum    = headSize - 4
	// MaxTag is the size of the longest tag, in bytes.
	MaxTag = atSum - atTag - 1
	// KeySize is the size of a key, in bytes: AES-256.
	KeySize = 32
)

// head is what a segment says of itself.
type head struct {
	base uint64
	tag  []byte
	key  [keyName]byte // zero where its records are stored as they are
	raw  []byte
}

func (h *head) encrypted() bool { return h.key != [keyName]byte{} }

// newHead makes the head of a new segment.
func newHead(base uint64, tag, key []byte) (*head, error) {
	b := make([]byte, headSize)
	copy(b, headMagic)
	binary.LittleEndian.PutUint64(b[atBase:], base)
	if key != nil {
		if _, err := rand.Read(b[atSalt : atSalt+saltSize]); err != nil {
			return nil, err
		}
		name, err := nameOf(key)
		if err != nil {
			return nil, err
		}
		copy(b[atKey:], name[:])
	}
	b[atTag] = byte(len(tag))
	copy(b[atTag+1:atSum], tag)
	binary.LittleEndian.PutUint32(b[atSum:], crc32.Checksum(b[:atSum], castagnoli))
	return parseHead(b)
}

func parseHead(b []byte) (*head, error) {
	if len(b) < headSize || !bytes.HasPrefix(b, headMagic) {
		return nil, errors.New("not a segment")
	}
	b = bytes.Clone(b[:headSize])
	if binary.LittleEndian.Uint32(b[atSum:]) != crc32.Checksum(b[:atSum], castagnoli) || int(b[atTag]) > MaxTag {
		return nil, errors.New("the head is broken")
	}
	h := &head{base: binary.LittleEndian.Uint64(b[atBase:]), tag: b[atTag+1 : atTag+1+int(b[atTag])], raw: b}
	copy(h.key[:], b[atKey:])
	return h, nil
}

// nameOf names a key, so that a wrong one is told from a broken record. It says nothing of the key itself.
func nameOf(key []byte) (name [keyName]byte, err error) {
	b, err := hkdf.Key(sha256.New, key, nil, "meshtap spool v1 key name", keyName)
	copy(name[:], b)
	return name, err
}

// ErrKey says that records are encrypted, and not with the key that was given.
var ErrKey = errors.New("it is encrypted, and not with this key")

// cipher returns what opens and seals the records of a segment: nil where they are stored as they are. Each segment has
// a key of its own, derived by its salt, so that the number of a record is a nonce that is used once.
func (h *head) cipher(key []byte) (cipher.AEAD, error) {
	if !h.encrypted() {
		return nil, nil
	}
	if key == nil {
		return nil, ErrKey
	}
	if name, err := nameOf(key); err != nil || name != h.key {
		return nil, ErrKey
	}
	own, err := hkdf.Key(sha256.New, key, h.raw[atSalt:atSalt+saltSize], "meshtap spool v1 segment", KeySize)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	block, err := aes.NewCipher(own)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return cipher.NewGCM(block)
}

func nonce(seq uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 4, 12), seq)
}

// appendRecord appends the frame of a record, sealed where aead is not nil.
func appendRecord(dst []byte, seq uint64, payload []byte, aead cipher.AEAD, h *head) []byte {
	if aead == nil {
		return appendFrame(dst, seq, payload)
	}
	at := len(dst)
	dst = aead.Seal(openFrame(dst, seq), nonce(seq), payload, h.raw)
	closeFrame(dst[at:])
	return dst
}

// open returns the payload of a frame as it was appended. It decrypts in place.
func (f *frame) open(aead cipher.AEAD, h *head) ([]byte, error) {
	if aead == nil {
		return f.payload, nil
	}
	return aead.Open(f.payload[:0], nonce(f.seq), f.payload, h.raw)
}

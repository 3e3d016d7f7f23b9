// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"bytes"

	"github.com/meshtap/meshtap/internal/ascii"
	"github.com/meshtap/meshtap/mesh"
)

// pathVerdict says what became of a path.
type pathVerdict uint8

const (
	pathGood pathVerdict = iota
	pathBad
	pathRedirect
)

// canonicalPath appends the canonical form of a path, whose query is left as it is, by what the configuration asks for
// and in Envoy's order: escaped slashes, then normalization, then the merging of slashes.
//
// Normalization is Envoy's, which has it from Chromium: escapes of unreserved characters are decoded, other escapes and a
// '%' that begins none stay as they are, characters that no URL may hold are escaped, a backslash is a slash, and dot
// segments are removed, with parameters ("..;x") and escaped ones too. It goes beyond Envoy in two places, so that what is
// canonical stays so when it is canonicalized again: dots that were escaped may have parameters, and slashes alone merge
// to one.
func canonicalPath(dst, in []byte, cfg *mesh.HTTPManager) ([]byte, pathVerdict) {
	end := 0
	for end < len(in) && in[end] != '?' {
		end++
	}
	path, query := in[:end], in[end:]
	verdict := pathGood
	if cfg.EscapedSlashes != mesh.SlashesKeep {
		unescaped, found := unescapeSlashes(path)
		switch {
		case found && cfg.EscapedSlashes == mesh.SlashesReject:
			return dst, pathBad
		case found && cfg.EscapedSlashes == mesh.SlashesUnescapeRedirect:
			verdict = pathRedirect
		}
		path = unescaped
	}
	at := len(dst)
	if cfg.NormalizePath {
		var ok bool
		if dst, ok = normalize(dst, path); !ok {
			return dst, pathBad
		}
	} else {
		dst = append(dst, path...)
	}
	if cfg.MergeSlashes {
		dst = dst[:at+mergeSlashes(dst[at:])]
	}
	return append(dst, query...), verdict
}

// unescapeSlashes turns %2f and %5c into slash and backslash. Where there are none it returns path itself.
func unescapeSlashes(path []byte) (out []byte, found bool) {
	for i := 0; i+2 < len(path); i++ {
		if c, ok := ascii.Escaped(path[i:]); ok && (c == '/' || c == '\\') {
			found = true
			break
		}
	}
	if !found {
		return path, false
	}
	for i := 0; i < len(path); i++ {
		if c, ok := ascii.Escaped(path[i:]); ok && (c == '/' || c == '\\') {
			out = append(out, c)
			i += 2
			continue
		}
		out = append(out, path[i])
	}
	return out, true
}

func unreserved(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c-'0' <= 9 || c == '-' || c == '.' || c == '_' || c == '~'
}

// unfit are the visible characters that a path may not hold unescaped, by Chromium's table.
var unfit = []byte("\"<>^`{|}")

// normalize appends the normalized path. ok is false where an escape stands for NUL, and where a '%' that begins none
// would begin one in the result, which whoever reads it next would decode.
func normalize(dst, path []byte) (_ []byte, ok bool) {
	start, stray := len(dst), -1
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '\\':
			dst = append(dst, '/')
		case c == '%':
			v, valid := ascii.Escaped(path[i:])
			switch {
			case valid && v == 0:
				return dst, false
			case valid && unreserved(v):
				dst = append(dst, v)
				i += 2
			case valid:
				dst = append(dst, path[i:i+3]...)
				i += 2
			default:
				stray = len(dst)
				dst = append(dst, c)
			}
		case bytes.IndexByte(unfit, c) >= 0:
			const digits = "0123456789ABCDEF"
			dst = append(dst, '%', digits[c>>4], digits[c&15])
		default:
			dst = append(dst, c)
		}
		if stray >= 0 && len(dst) == stray+3 {
			if _, escapes := ascii.Escaped(dst[stray:]); escapes {
				return dst, false
			}
		}
	}
	return dst[:start+removeDots(dst[start:])], true
}

// removeDots removes "." and ".." segments, with what follows a ';' in them, in place (RFC 3986 section 5.2.4) and returns
// the new length. p begins with a slash; ".." never goes above the root.
func removeDots(p []byte) int {
	n := 0
	for i := 0; i < len(p); {
		// p[i] is a slash; the segment is up to the next.
		j := i + 1
		for j < len(p) && p[j] != '/' {
			j++
		}
		seg, _, _ := bytes.Cut(p[i+1:j], []byte(";"))
		switch seg := string(seg); {
		case seg == "." || seg == "..":
			if seg == ".." {
				for n > 0 {
					n--
					if p[n] == '/' {
						break
					}
				}
			}
			if j == len(p) {
				p[n] = '/'
				n++
			}
		default:
			n += copy(p[n:], p[i:j])
		}
		i = j
	}
	return n
}

// mergeSlashes makes one slash of several, in place, and returns the new length.
func mergeSlashes(p []byte) int {
	n := 0
	for i, c := range p {
		if c == '/' && i > 0 && p[i-1] == '/' {
			continue
		}
		p[n] = c
		n++
	}
	return n
}

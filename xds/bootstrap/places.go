// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"strconv"
	"strings"
)

// merge adds what an override's walk remembers to that of the file.
func (w *walker) merge(over *walker) {
	for path, at := range over.places {
		w.places[w.shift(path)] = at
	}
	for path, text := range over.texts {
		w.texts[w.shift(path)] = text
	}
	for path := range over.hurt {
		w.hurt[w.shift(path)] = true
	}
	for path, hint := range over.hints {
		w.hints[w.shift(path)] = hint
	}
}

// shift turns a path of an override into one of the merged message. Messages are merged as protobuf does: what is in
// the first list on a path comes behind the items that are there already. Without a file, nothing moves.
func (w *walker) shift(path string) string {
	i := firstIndex(path)
	if w == nil || i < 0 {
		return path
	}
	index, rest, _ := strings.Cut(path[i+1:], "]")
	n, err := strconv.Atoi(index)
	if err != nil {
		return path
	}
	return path[:i+1] + strconv.Itoa(n+w.sizes[path[:i]]) + "]" + rest
}

// firstIndex returns where the first list index of a path begins, or -1. Map keys are quoted.
func firstIndex(path string) int {
	quoted := false
	for i := 0; i+1 < len(path); i++ {
		switch {
		case quoted && path[i] == '\\':
			i++
		case path[i] == '"':
			quoted = !quoted
		case !quoted && path[i] == '[' && path[i+1] >= '0' && path[i+1] <= '9':
			return i
		}
	}
	return -1
}

// place returns where a field stands, or the nearest of those around it.
func (w *walker) place(path string) position {
	for {
		if at, ok := w.places[path]; ok {
			return at
		}
		if i := strings.LastIndexByte(path, '['); i > cut(path) { // an item of a list that is not there
			path = path[:i]
			continue
		}
		if path == "" {
			return position{file: w.file}
		}
		path = parent(path)
	}
}

// followsFrom says whether an error may only be there because something was left out of the text.
func (w *walker) followsFrom(path, msg string) bool {
	if w.hurt[path] {
		return true
	}
	missing := strings.Contains(msg, "required") || strings.Contains(msg, "must not be empty") ||
		strings.Contains(msg, "must have at least")
	return missing && w.hurt[parent(path)]
}

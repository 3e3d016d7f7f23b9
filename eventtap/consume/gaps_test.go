// SPDX-License-Identifier: Apache-2.0

package consume

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/eventtap/event"
)

// numbered returns an event with a number of a boot.
func numbered(boot string, n uint64) *event.Event {
	e := &event.Event{}
	e.Reset(event.Request)
	e.ID, e.BootID, e.Source, e.StreamSeq = fmt.Appendf(nil, "%s-%d", boot, n), []byte(boot), []byte("/meshtap/web/-/-/web-1"), n
	return e
}

// lostUpTo returns an event that tells of the loss of count events, the last of which had this number.
func lostUpTo(boot string, count int64, last uint64) *event.Event {
	e := numbered(boot, 0)
	e.Reset(event.Lost)
	e.BootID, e.Source = []byte(boot), []byte("/meshtap/web/-/-/web-1")
	e.Numbers[event.Count], e.Numbers[event.LastStreamSeq] = count, int64(last)
	return e
}

// TestGaps feeds numbers of boots, as "a1 a2 b7", and losses, as "a!3@9" for three up to the ninth. What is told at once
// stands before the bar, what is left at the end behind it.
func TestGaps(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want string }{
		{"nothing", "", "|"},
		{"no hole", "a1 a2 a3", "|"},
		{"one is missing", "a1 a3", "|a2-2:1"},
		{"several are missing", "a1 a5 a7", "|a2-4:3 a6-6:1"},
		{"what was before the first is not known", "a7 a8", "|"},
		{"what comes late fills the hole", "a1 a3 a2", "|"},
		{"the middle of a hole splits it", "a1 a6 a4", "|a2-3:2 a5-5:1"},
		{"the ends of a hole shrink it", "a1 a6 a2 a5", "|a3-4:2"},
		{"what is late and before the first changes nothing", "a5 a4 a6", "|"},
		{"boots are apart", "a1 b1 a2 b3", "|b2-2:1"},
		{"a loss explains its hole", "a1 a5 a!3@4", "|"},
		{"a loss that comes before its hole is seen explains it", "a1 a!3@4 a5", "|"},
		{"a loss explains a part", "a1 a6 a!3@5", "|a2-5:1"},
		{"a loss is used once", "a1 a3 a5 a!1@4", "|a4-4:1"},
		{"a loss before the first number is nobody's", "a!4@4 a5 a7", "|a6-6:1"},
		{"a loss of another boot explains nothing", "a1 b1 a3 b!1@2", "|a2-2:1"},
		{"events without a number are passed over", "a1 a0 a2", "|"},
		{"a hole is told when there is no more patience", "a1 a3" + inOrder(4, DefaultPatience), "a2-2:1|"},
		{"not before", "a1 a3" + inOrder(4, DefaultPatience-1), "|a2-2:1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := NewGaps(0)
			var at []string
			for word := range strings.FieldsSeq(c.in) {
				boot, rest := word[:1], word[1:]
				if count, last, lost := strings.Cut(strings.TrimPrefix(rest, "!"), "@"); lost {
					at = append(at, holes(g.See(lostUpTo(boot, int64(atoi(count)), atoi(last))))...)
					continue
				}
				at = append(at, holes(g.See(numbered(boot, atoi(rest))))...)
			}
			if got := strings.Join(at, " ") + "|" + strings.Join(holes(g.Rest()), " "); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if again := g.Rest(); again != nil {
				t.Errorf("told twice: %v", again)
			}
		})
	}
}

func inOrder(from, n uint64) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, " a%d", from+i)
	}
	return b.String()
}

func atoi(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func holes(list []Gap) (out []string) {
	for _, m := range list {
		out = append(out, fmt.Sprintf("%s%d-%d:%d", m.Boot, m.From, m.To, m.Count))
	}
	return out
}

// TestGapsModel: whatever is missing, told of, and out of order within the patience, what is called missing is what did
// not come between the first and the last, less what was told of.
func TestGapsModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var numbers []uint64
		holes, told := uint64(0), uint64(0)
		for n, end := uint64(1), uint64(50+rnd.IntN(400)); n <= end; n++ {
			if n > 1 && n < end && rnd.IntN(5) == 0 {
				holes++
				continue
			}
			numbers = append(numbers, n)
		}
		for i := 2; i < len(numbers)-2; i++ { // the first stays the first
			if j := i + rnd.IntN(2); rnd.IntN(3) == 0 && j < len(numbers) {
				numbers[i], numbers[j] = numbers[j], numbers[i]
			}
		}
		g := NewGaps(0)
		missing := uint64(0)
		for i, n := range numbers {
			for _, m := range g.See(numbered("a", n)) {
				missing += m.Count
			}
			if i == len(numbers)/2 && holes > 0 && len(numbers) < DefaultPatience {
				told = holes / 2
				g.See(lostUpTo("a", int64(told), n))
			}
		}
		for _, m := range g.Rest() {
			missing += m.Count
		}
		if missing != holes-told {
			t.Fatalf("seed %d: %d missing, want %d of %d", seed, missing, holes-told, holes)
		}
	}
}

// TestGapsAreBounded: neither boots nor holes grow without end.
func TestGapsAreBounded(t *testing.T) {
	t.Parallel()
	g := NewGaps(0)
	for n := range 2 * maxBoots {
		g.See(numbered(strconv.Itoa(n), 1))
	}
	if len(g.boots) > maxBoots || len(g.order) > maxBoots {
		t.Errorf("%d boots, %d in order", len(g.boots), len(g.order))
	}
	told := 0
	for n := range uint64(maxHoles + 50) {
		told += len(g.See(numbered("holes", 1+2*n)))
	}
	if open := len(g.boots["holes"].holes); open > maxHoles {
		t.Errorf("%d holes are open", open)
	}
	if told == 0 {
		t.Error("no hole was told to make room")
	}
}

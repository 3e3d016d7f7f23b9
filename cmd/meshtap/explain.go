// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/internal/nearest"
)

// explanation is what there is to say about a word that Meshtap shows.
type explanation struct {
	// Name is the word.
	Name string `json:"name"`
	// Long is what it stands for.
	Long string `json:"long,omitempty"`
	// Kind is where it is met: flag, failure, circuit, outlier, event or config.
	Kind string `json:"kind"`
	// Status is what a client is answered.
	Status int `json:"status,omitempty"`
	// Also are other names for it.
	Also []string `json:"also,omitempty"`
	// Cause says what happened.
	Cause string `json:"cause"`
	// Next says what to do.
	Next string `json:"next"`
}

func newExplain() *cobra.Command {
	var out cli.Output
	cmd := &cobra.Command{
		Use:   "explain [WORD...]",
		Short: "Say what a response flag or another word means, and what to do",
		Example: `  meshtap explain UF
  meshtap explain circuit NACK`,
		ValidArgsFunction: cobra.FixedCompletions(explainable(), cobra.ShellCompDirectiveNoFileComp),
	}
	out.Add(cmd, cli.Table, cli.JSON)
	cmd.RunE = verb(func(_ context.Context, cmd *cobra.Command, words []string) error { return explain(cmd, &out, words) })
	return cmd
}

func explain(cmd *cobra.Command, out *cli.Output, words []string) error {
	s, err := out.Open(cmd)
	if err != nil {
		return err
	}
	var found []explanation
	for _, w := range words {
		e, ok := lookUp(w)
		if !ok {
			hint := "meshtap explain lists the words that are known"
			if near := nearest.Name(w, explainable()); near != "" {
				hint = "did you mean " + near + "?"
			}
			return cli.Usage(hint, "nothing is known about %q", w)
		}
		found = append(found, e)
	}
	switch {
	case out.Format == cli.JSON && len(words) == 0:
		err = s.JSON(document{"words": explanations})
	case out.Format == cli.JSON:
		err = s.JSON(document{"words": found})
	case len(words) == 0:
		listWords(s)
	}
	if out.Format != cli.JSON {
		for i, e := range found {
			if i > 0 {
				s.Text("")
			}
			e.print(s)
		}
	}
	if err != nil {
		return err
	}
	return s.Flush()
}

// lookUp finds a word by its name, long name or another name, whatever the case.
func lookUp(word string) (explanation, bool) {
	word = strings.ReplaceAll(word, "-", "_")
	for _, e := range explanations {
		for _, n := range append([]string{e.Name, e.Long}, e.Also...) {
			if n != "" && strings.EqualFold(n, word) {
				return e, true
			}
		}
	}
	return explanation{}, false
}

// explainable are the names.
func explainable() []string {
	var out []string
	for _, e := range explanations {
		out = append(out, e.Name)
	}
	return out
}

func listWords(s *cli.Screen) {
	g := cli.NewGrid(cli.Column{Name: "WORD"}, cli.Column{Name: "KIND"}, cli.Column{Name: "MEANS", Flex: 20})
	for _, e := range explanations {
		means := e.Long
		if means == "" {
			means, _, _ = strings.Cut(e.Cause, ". ")
		}
		g.Row(cli.T(e.Name), cli.T(e.Kind), cli.T(means))
	}
	g.Print(s)
}

// textWidth is where the lines of an explanation end.
const textWidth = 78

func (e explanation) print(s *cli.Screen) {
	head := []cli.Cell{{Text: e.Name, Style: cli.Strong}, cli.T("  " + e.Kind)}
	if e.Long != "" {
		head = append(head, cli.T("  "+e.Long))
	}
	if e.Status > 0 {
		head = append(head, cli.T("  status "+strconv.Itoa(e.Status)))
	}
	s.Line(head...)
	for _, p := range []struct{ label, text string }{{"cause", e.Cause}, {"next", e.Next}, {"also", strings.Join(e.Also, ", ")}} {
		label := p.label
		for line := range wrap(p.text, textWidth-8) {
			s.Line(cli.T(pad("  "+label, 8) + line))
			label = ""
		}
	}
}

func pad(s string, n int) string { return s + strings.Repeat(" ", max(n-len(s), 0)) }

// wrap yields lines of at most n characters.
func wrap(text string, n int) func(func(string) bool) {
	return func(yield func(string) bool) {
		line := ""
		for _, w := range strings.Fields(text) {
			if line != "" && len(line)+1+len(w) > n {
				if !yield(line) {
					return
				}
				line = ""
			}
			if line != "" {
				line += " "
			}
			line += w
		}
		if line != "" {
			yield(line)
		}
	}
}

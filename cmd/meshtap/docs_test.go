// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/xds/bootstrap"
)

const docHead = "# The command line\n\nGenerated from the commands themselves by `go test ./cmd/meshtap -run TestDocs -rewrite`.\n\n" + `Data goes to standard output, everything else to standard error. A table is for people: its columns may change. Programs
take ` + "`-o json`" + `, whose documents have an ` + "`apiVersion`" + `. Events are CloudEvents in JSON, with ` + "`-o jsonl`" + ` one per line; their fields are
those of [event.proto](../api/meshtap/event/v1/event.proto). Colours are used on a terminal only, and nowhere where ` + "`NO_COLOR`" + `
is set. What comes from elsewhere is printed without control characters.

Each flag has an environment variable, ` + "`MESHTAP_`" + ` and its name in capitals; what has none is marked. A flag comes before its
variable, and that before the context, which is the file in which ` + "`meshtapd demo`" + ` says where its proxies are:
` + "`$XDG_STATE_HOME/meshtap/context.json`, or `~/.local/state/meshtap/context.json`.\n"

// TestDocs keeps docs/cli.md.
func TestDocs(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	b.WriteString(docHead)
	writeCodes(&b)
	root := newRoot()
	writeCommon(&b, root)
	eachCommand(root, func(c *cobra.Command) {
		if c.Runnable() && c.HasParent() && !c.HasSubCommands() {
			writeCommand(t, &b, c)
		}
	})
	writeEnvoy(&b)
	golden(t, "../../docs/cli.md", b.Bytes())
}

func writeCodes(b io.Writer) {
	fmt.Fprint(b, "\n## Exit codes\n\nAn error is one line on standard error and a hint below it. With `-o json` it is an object with `code` (the name below),\n`message`, `hint` and `docs`.\n\n| code | name | means |\n|---|---|---|\n")
	for _, c := range cli.ExitCodes() {
		fmt.Fprintf(b, "| %d | %s | %s |\n", c.Code, quoted(c.Name), c.Meaning)
	}
}

func quoted(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

// writeCommon writes the flags that verbs share, once.
func writeCommon(b io.Writer, root *cobra.Command) {
	fmt.Fprint(b, "\n## Flags that commands share\n\n")
	seen := map[string]bool{}
	writeFlagHead(b)
	eachCommand(root, func(c *cobra.Command) {
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if cli.IsCommon(f) && !seen[f.Name] {
				seen[f.Name] = true
				writeFlag(b, f)
			}
		})
	})
}

func writeFlagHead(b io.Writer) {
	fmt.Fprint(b, "| flag | takes | default | does |\n|---|---|---|---|\n")
}

func writeFlag(b io.Writer, f *pflag.Flag) {
	takes, does := cli.FlagUsage(f)
	name := "--" + f.Name
	if f.Shorthand != "" {
		name = "-" + f.Shorthand + ", " + name
	}
	if !cli.HasEnv(f) {
		does += " (no variable)"
	}
	value := f.DefValue
	if value == "false" || value == "[]" {
		value = ""
	}
	fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", name, takes, quoted(value), strings.ReplaceAll(does, "|", "\\|"))
}

func writeCommand(t *testing.T, b io.Writer, c *cobra.Command) {
	fmt.Fprintf(b, "\n## %s\n\n%s.\n", c.CommandPath(), c.Short)
	if c.Long != "" {
		fmt.Fprintf(b, "%s\n", strings.TrimSuffix(c.Long, "\n"))
	}
	fmt.Fprintf(b, "\n```\n%s\n\n%s\n```\n", strings.TrimSuffix(c.UseLine(), " [flags]"), c.Example)
	var common []string
	head := false
	c.LocalFlags().SortFlags = false
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		switch {
		case f.Hidden || f.Name == "help" || f.Name == "version":
		case cli.IsCommon(f):
			common = append(common, "`--"+f.Name+"`")
		default:
			if !head {
				fmt.Fprintln(b)
				writeFlagHead(b)
				head = true
			}
			writeFlag(b, f)
		}
	})
	if len(common) > 0 {
		fmt.Fprintf(b, "\nAnd %s.\n", strings.Join(common, ", "))
	}
	writeJSON(t, b, c.CommandPath())
}

// jsonOf are the documents of the verbs: the key at the top, and the type behind it.
var jsonOf = map[string][]struct {
	key string
	typ reflect.Type
}{
	"meshtap stat":          {{"services", reflect.TypeFor[[]statRow]()}},
	"meshtap status":        {{"proxies", reflect.TypeFor[[]proxyStatus]()}},
	"meshtap circuits":      {{"circuits", reflect.TypeFor[[]circuitJSON]()}},
	"meshtap spool ls":      {{"spools", reflect.TypeFor[[]spoolJSON]()}},
	"meshtap spool verify":  {{"spools", reflect.TypeFor[[]spoolJSON]()}},
	"meshtap events verify": {{"boots", reflect.TypeFor[[]check]()}},
	"meshtap replay":        {{"replay", reflect.TypeFor[replay]()}},
	"meshtap explain":       {{"words", reflect.TypeFor[[]explanation]()}},
	"meshtap fault ls":      {{"faults", reflect.TypeFor[map[string]faults]()}},
	// One document for each file.
	"meshtap config validate": {{"issues", reflect.TypeFor[[]bootstrap.Issue]()}},
}

func writeJSON(t *testing.T, b io.Writer, path string) {
	docs := jsonOf[path]
	if len(docs) == 0 {
		return
	}
	fmt.Fprint(b, "\nFields of `-o json`, besides `apiVersion`:\n\n| field | type | is |\n|---|---|---|\n")
	comments := fieldComments(t)
	for _, d := range docs {
		writeFields(t, b, comments, d.key, d.typ)
	}
	switch path {
	case "meshtap stat":
		fmt.Fprint(b, "| `window_ms` | number | how long was measured |\n")
	case "meshtap events verify":
		fmt.Fprint(b, "| `ok` | true or false | whether everything adds up |\n| `unreadable` | number | messages of the capture that are no events |\n")
	case "meshtap config validate":
		fmt.Fprint(b, "| `file` | text | the file; there is one document for each |\n| `valid` | true or false | whether it can be used |\n| `errors`, `warnings` | number | how many there are |\n")
	}
}

// writeFields writes a row for each leaf below a field.
func writeFields(t *testing.T, b io.Writer, comments map[string]string, at string, typ reflect.Type) {
	switch typ.Kind() {
	case reflect.Slice:
		at, typ = at+"[]", typ.Elem()
	case reflect.Map:
		at, typ = at+".NAME", typ.Elem()
	case reflect.Pointer:
		typ = typ.Elem()
	}
	for i := range typ.NumField() {
		f := typ.Field(i)
		if f.Anonymous {
			writeFields(t, b, comments, at, f.Type)
			continue
		}
		tag, ok := f.Tag.Lookup("json")
		name, opts, _ := strings.Cut(tag, ",")
		if !ok || !f.IsExported() {
			continue
		}
		is := comments[typ.Name()+"."+f.Name]
		if is == "" {
			t.Errorf("%s.%s has no comment", at, name)
		}
		if opts != "" {
			is += "; left out where there is none"
		}
		kind := f.Type
		if kind.Kind() == reflect.Pointer && kind.Elem().Kind() != reflect.Struct {
			is, kind = is+"; null where it is not known", kind.Elem()
		}
		fmt.Fprintf(b, "| `%s.%s` | %s | %s |\n", at, name, typeName(kind), is)
		if elem := kind; elem.Kind() == reflect.Slice && elem.Elem().Kind() == reflect.Struct || elem.Kind() == reflect.Pointer {
			writeFields(t, b, comments, at+"."+name, elem)
		}
	}
}

func typeName(t reflect.Type) string {
	switch {
	case t.Name() == "Time":
		return "time, RFC 3339"
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Slice:
		return "list"
	case t.Kind() == reflect.Pointer || t.Kind() == reflect.Map:
		return "object"
	}
	return "number"
}

// fieldComments returns what the source says about the fields of structs, by TYPE.FIELD.
func fieldComments(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{ // of another package
		"Issue.File": "the file, or the flag that held the text", "Issue.Line": "counted from 1", "Issue.Column": "counted from 1",
		"Issue.Severity": "error or warn", "Issue.Path": "the field in the bootstrap", "Issue.Message": "what is wrong and what is allowed",
		"Issue.Hint": "what was probably meant",
	}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		collectComments(f, out)
	}
	return out
}

func collectComments(file *ast.File, out map[string]string) {
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if s, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range s.Fields.List {
				text := strings.Join(strings.Fields(f.Doc.Text()+" "+f.Comment.Text()), " ")
				for _, name := range f.Names {
					out[spec.Name.Name+"."+name.Name] = sentence(name.Name, text)
				}
			}
		}
		return true
	})
}

// sentence makes of a field's comment what stands in a table: without "Name is", and without the full stop.
func sentence(name, text string) string {
	for _, verb := range []string{" is ", " are ", " says ", " say "} {
		if rest, ok := strings.CutPrefix(text, name+verb); ok {
			text = rest
			break
		}
	}
	return strings.TrimSuffix(text, ".")
}

func writeEnvoy(b io.Writer) {
	fmt.Fprint(b, "\n## Envoy's flags\n\n`meshtap -c FILE` without a verb is `meshtap serve`, and under the name of `envoy` the program is nothing else, so that it\ncan stand where an envoy binary stood. It takes every flag of Envoy 1.40. These mean nothing here; they are accepted, and\nwhere they are given the log warns:\n\n| flag | why |\n|---|---|\n")
	for _, v := range ignored {
		fmt.Fprintf(b, "| `--%s` | %s |\n", v.name, v.why)
	}
	fmt.Fprint(b, "\nThese ask for what is so in any case, or are other names:\n\n| flag | does |\n|---|---|\n")
	newServe().Flags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden && !strings.HasPrefix(f.Usage, "no effect: ") {
			fmt.Fprintf(b, "| `--%s` | %s |\n", f.Name, f.Usage)
		}
	})
	fmt.Fprint(b, "\n`--mode init_only` is refused.\n")
}

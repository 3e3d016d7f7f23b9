// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"sync"

	celpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
)

const typeExpression = "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"

// filterFields says which fields of a filter are honoured.
var filterFields = filterCoverage()

func filterCoverage() *protofields.Table {
	t := protofields.New()
	t.Add(&celpb.ExpressionFilter{}, protofields.Honour("expression"),
		protofields.Refuse("an expression cannot make texts, put them together or change them", "cel_config"))
	return t
}

// FilterRows returns the filters of access logs for the table of extensions. Their configuration is an *Expression.
func FilterRows() []registry.Row[struct{}] {
	made := sync.OnceValues(newLanguage)
	return []registry.Row[struct{}]{{
		Info: registry.Info{
			Category: registry.LogFilter, Name: "envoy.access_loggers.extension_filters.cel",
			TypeURLs: []string{typeExpression},
			Status:   registry.Stable, Posture: "data-plane-agnostic", Example: "accesslog.yaml",
		},
		Parse: func(_ string, b []byte) (registry.Parsed, error) {
			var m celpb.ExpressionFilter
			p, err := filterFields.Decode(b, &m)
			if err != nil {
				return p, err
			}
			language, err := made()
			if err != nil {
				return registry.Parsed{}, err
			}
			test, err := language.Compile(m.Expression)
			if err != nil {
				return registry.Parsed{}, registry.Errorf("expression", "%v", err)
			}
			p.Config = &Expression{test}
			return p, nil
		},
	}}
}

// SPDX-License-Identifier: Apache-2.0

package mesh

// Format is a parsed substitution format: literals and operators such as %REQ(X?Y):Z%, as Envoy's access logs and
// header values use them. internal/format parses it, proxy/format evaluates it.
type Format []FormatPart

// FormatPart is one piece of a Format: text where Op is "", otherwise an operator.
type FormatPart struct {
	// Text is the literal text, with %% already turned into %.
	Text string
	// Op is the operator's name in upper case, such as "REQ", with aliases resolved (REQUEST_HEADER is REQ).
	Op string
	// Arg and Alt are the operator's argument and, for REQ(X?Y), the alternative. Header names are lower case.
	Arg, Alt string
	// Max is the greatest length in bytes, after ':'; 0 means no limit.
	Max int
}

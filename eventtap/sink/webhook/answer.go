// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/meshtap/meshtap/internal/login"
)

// refusal is an answer that will not change.
type refusal struct{ error }

// judge says what an answer means for what was posted.
func (s *Sink) judge(resp *fasthttp.Response) error {
	status := resp.StatusCode()
	if status/100 == 2 {
		return nil
	}
	s.notBefore = s.now().Add(min(retryAfter(resp.Header.Peek("Retry-After"), s.now()), s.cfg.MaxRetryAfter))
	err := fmt.Errorf("webhook: the server answers %d %s: %.200q", status, http.StatusText(status), resp.Body())
	switch {
	case status == http.StatusBadRequest, status == http.StatusRequestEntityTooLarge, status == http.StatusUnsupportedMediaType,
		status == http.StatusUnprocessableEntity:
		return &refusal{err}
	case status/100 == 3:
		return fmt.Errorf("%w; redirects are not followed: set url to where the server is (it says %.200q)", err, resp.Header.Peek("Location"))
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return fmt.Errorf("%w; check signing_key_file and bearer_token_file", err)
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed, status == http.StatusGone:
		return fmt.Errorf("%w; check url", err)
	}
	return err
}

// retryAfter reads the header Retry-After (RFC 9110 section 10.2.3): seconds or a date. It returns 0 for anything else.
func retryAfter(v []byte, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(string(v), 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(string(v)); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// authorize adds the token and the signatures.
func (s *Sink) authorize(req *fasthttp.Request, id string) error {
	token, err := s.token()
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("authorization", "Bearer "+token)
	}
	keys, err := s.keys()
	if err != nil || len(keys) == 0 {
		return err
	}
	at := strconv.FormatInt(s.now().Unix(), 10)
	var signatures []string
	for _, k := range keys {
		signatures = append(signatures, sign(k, id, at, req.Body()))
	}
	req.Header.Set("webhook-id", id)
	req.Header.Set("webhook-timestamp", at)
	req.Header.Set("webhook-signature", strings.Join(signatures, " "))
	return nil
}

// sign returns a signature of Standard Webhooks.
func sign(key []byte, id, at string, body []byte) string {
	h := hmac.New(sha256.New, key)
	fmt.Fprintf(h, "%s.%s.", id, at)
	h.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// The bounds of the keys of Standard Webhooks, in bytes, and how many may be in use at once.
const minKey, maxKey, maxKeys = 24, 64, 4

// keys reads the keys that sign.
func (s *Sink) keys() (keys [][]byte, err error) {
	if s.cfg.KeyFile == "" {
		return nil, nil
	}
	text, err := login.Secret(s.cfg.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	for i, line := range strings.Split(text, "\n") {
		encoded, ok := strings.CutPrefix(strings.TrimSpace(line), "whsec_")
		k, err := base64.StdEncoding.DecodeString(encoded)
		if !ok || err != nil || len(k) < minKey || len(k) > maxKey || i == maxKeys {
			return nil, fmt.Errorf("webhook: line %d of %s is not whsec_ and %d to %d bytes in base64, at most %d lines are allowed",
				i+1, s.cfg.KeyFile, minKey, maxKey, maxKeys)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func (s *Sink) token() (string, error) {
	if s.cfg.TokenFile == "" {
		return "", nil
	}
	token, err := login.Secret(s.cfg.TokenFile)
	if err != nil {
		return "", fmt.Errorf("webhook: %w", err)
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", fmt.Errorf("webhook: %s holds what no token may: spaces, control characters or other than ASCII", s.cfg.TokenFile)
	}
	return token, nil
}

// SPDX-License-Identifier: Apache-2.0

package grpcwire

import (
	"math"
	"strconv"
	"time"

	"github.com/meshtap/meshtap/internal/ascii"
)

// maxDigits is how many digits a grpc-timeout may have.
const (
	maxDigits = 8
	maxValue  = 99_999_999
)

// Timeout reads a grpc-timeout: 1 to 8 digits and a unit of "HMSmun". It is rounded up to whole milliseconds, and to the
// longest time.Duration where it is beyond that, 292 years. Envoy also takes a sign and white space; here they make it
// unreadable.
func Timeout(v []byte) (d time.Duration, ok bool) {
	if len(v) < 2 {
		return 0, false
	}
	n, ok := ascii.Decimal(v[:len(v)-1], maxDigits)
	unit := unitOf(v[len(v)-1])
	if !ok || unit == 0 {
		return 0, false
	}
	const longest = math.MaxInt64 / int64(time.Millisecond) * int64(time.Millisecond)
	if n > longest/int64(unit) {
		return time.Duration(longest), true
	}
	d = time.Duration(n) * unit
	return (d + time.Millisecond - 1) / time.Millisecond * time.Millisecond, true
}

func unitOf(c byte) time.Duration {
	switch c {
	case 'H':
		return time.Hour
	case 'M':
		return time.Minute
	case 'S':
		return time.Second
	case 'm':
		return time.Millisecond
	case 'u':
		return time.Microsecond
	case 'n':
		return time.Nanosecond
	}
	return 0
}

// AppendTimeout appends a grpc-timeout as Envoy writes it: in the least unit from milliseconds on that has room for it.
func AppendTimeout(dst []byte, d time.Duration) []byte {
	n, unit := d.Milliseconds(), byte('m')
	if n > maxValue {
		n, unit = n/1000, 'S'
	}
	if n > maxValue {
		n, unit = n/60, 'M'
	}
	if n > maxValue {
		n, unit = n/60, 'H'
	}
	return append(strconv.AppendInt(dst, min(n, maxValue), 10), unit)
}

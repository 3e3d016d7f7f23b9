// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"github.com/cncf/xds/go/udpa/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// callCredentials holds tokens, which the API does not mark.
const callCredentials = "envoy.config.core.v3.GrpcService.GoogleGrpc.call_credentials"

// Sensitive reports whether a field holds what must not be shown: the API marks it (udpa.annotations.sensitive), or ought
// to.
func Sensitive(f protoreflect.FieldDescriptor) bool {
	if f.FullName() == callCredentials {
		return true
	}
	o, ok := f.Options().(*descriptorpb.FieldOptions)
	if !ok || o == nil {
		return false
	}
	hide, _ := proto.GetExtension(o, annotations.E_Sensitive).(bool)
	return hide
}

// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	statuspb "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/meshtap/meshtap/test/e2e/origin"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
	"github.com/meshtap/meshtap/test/fakexds"
)

// TestClientStatus: a program asks for the status of each resource over gRPC, once and in a stream; what was refused says why.
func TestClientStatus(t *testing.T) {
	t.Parallel()
	m := many{clusters: 2, routes: 10, origin: origin.Start(t, "a", nil).Addr()}
	cp := fakexds.Start(t)
	set := m.resources()
	cp.SetAll("1", set)
	path := filepath.Join(t.TempDir(), "csds.sock")
	p := sidecar.Run(t, sidecar.Options{Bootstrap: dynamic(cp, "GRPC"), Args: []string{"--no-tap", "--csds", "unix:" + path}})
	p.Ready()
	bad := fakexds.EDSCluster("bad")
	bad.ConnectTimeout = durationpb.New(-time.Second)
	cp.Set(fakexds.ClusterType, "2", append([]types.Resource{bad}, set[fakexds.ClusterType]...)...)
	p.Admin().Until("/xds", func(int, string) bool { return p.Admin().XDS().Of("cluster").State == "rejected" })

	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := statuspb.NewClientStatusDiscoveryServiceClient(conn)
	once, err := client.FetchClientStatus(t.Context(), &statuspb.ClientStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := client.StreamClientStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := stream.Send(&statuspb.ClientStatusRequest{ExcludeResourceContents: true}); err != nil {
			t.Fatal(err)
		}
		again, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := statuses(again), statuses(once); got != want {
			t.Errorf("the stream says:\n%s\nand once:\n%s", got, want)
		}
	}
	for _, want := range []string{
		`Cluster "c0" 1 ACKED`, `Cluster "cp"  ACKED`, `Cluster "bad"  NACKED connect_timeout: must be more than 0s`, `ClusterLoadAssignment "c0" 1 ACKED`,
		`Listener "l0" 1 ACKED`, `RouteConfiguration "l0" 1 ACKED`,
	} {
		if !strings.Contains(statuses(once), want) {
			t.Errorf("no %s in:\n%s", want, statuses(once))
		}
	}
}

// statuses are the lines of an answer, sorted.
func statuses(r *statuspb.ClientStatusResponse) string {
	var lines []string
	for _, x := range r.GetConfig()[0].GetGenericXdsConfigs() {
		short := x.GetTypeUrl()[strings.LastIndexByte(x.GetTypeUrl(), '.')+1:]
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %q %s %s %s", short, x.GetName(), x.GetVersionInfo(), x.GetClientStatus(), x.GetErrorState().GetDetails())))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

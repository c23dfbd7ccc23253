# make test         everything that must hold, with its set-up; ten minutes on two idle cores
# make soak         as many seeds and crash points as there is time for, SOAK, beginning with seed SEEDS; PARTS of it
# make fuzz         every fuzz target for FUZZTIME each
# make conformance  other people's suites against the built binary: SUITES is a folder with checkouts of
#                   eclipse/paho.mqtt.testing, eclipse/mosquitto and eclipse/paho.mqtt.golang
# make bench        the comparison with peers

FUZZTIME ?= 60s
SOAK ?= 3h
SEEDS ?= 1
PARTS ?= long race seeds
SUITES ?= suites

.PHONY: test setup build soak fuzz conformance bench
test:
	go run ./cmd/internal/check test

setup:
	go run ./cmd/internal/check setup

# -buildvcs: whatever GOFLAGS says, bellwire version is to tell the commit.
build:
	CGO_ENABLED=0 go build -buildvcs=auto -trimpath -ldflags="-s -w" -o bin/bellwire ./cmd/bellwire

soak: setup
	go run ./cmd/internal/check soak $(SOAK) $(SEEDS) $(PARTS)

fuzz:
	go run ./cmd/internal/check fuzz $(FUZZTIME)

conformance: setup build
	go run ./cmd/internal/check conformance $(SUITES)

bench: setup build
	go run ./cmd/internal/check bench

# One command each: make run (a daemon to try), make test (everything), make check (before a commit).
# A fresh Debian or Ubuntu needs Python 3.11 or later, make, and root or sudo; PYTHON=… chooses another Python.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
# Everything is pinned, hash-checked and complete, so pip has nothing to resolve and nothing to build with
# tools of an unknown version.
PIP := -m pip --disable-pip-version-check --no-input install --quiet --no-deps --no-build-isolation
LOCKED := $(PIP) --require-hashes
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --system-certs
# Kills of the daemon in the crash tests, of webhooks and of Kafka each; make crash raises it to 100, and the times it is
# stopped from 5, its consumer group divided anew from 10, to 50.
KILLS ?= 20
# Whole daemons beside whole brokers: a wait that expired may be the machine's fault and is waited for once more, with a word
# in the summary; a wrong answer never is, nor an event that did not arrive (docs/decisions/0016).
WHOLE := -r sR --reruns 1 --reruns-delay 5 --only-rerun '^AssertionError: not within' --rerun-except 'not within [0-9.]+ s: everything'
# Random lives of a mapping in make crash; make check runs 200 of them.
LIVES ?= 10000
# Of make soak.
MINUTES ?= 10
# Of make fuzz, for each target; make test gives each 20.
SECONDS_EACH ?= 600
# Pythons beside the one of .venv that the unit and contract tests run on, where they are installed.
MINORS := 11 13

# What builds and runs the bootstraps of tests: packages of Debian, and the programs that show they are there.
BOOTSTRAPS := gcc:cc libc6-dev:cc curl:curl ruby:ruby
# What makes networks of functions, and hosts for their tests.
NETWORKS := iproute2:ip nftables:nft

# Some environments forbid byte code, which makes every start of the daemon and of a worker slower.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test check kafka aws mqtt languages integration asyncio pythons elsewhere crash-quick crash soak fuzz bench sbom lock image clean

help:
	@sed -n 's/^# One command each: /&/p' Makefile
	@printf '  %s\n' \
	  'run     set up, then bridge run --watch config/quickstart.toml' \
	  'test    check and all tests, on uvloop, and on asyncio under another Python (3.11, 3.13) where one is here' \
	  'check   format, lint, types, layers, unit tests' \
	  'crash   100 kills, 50 stops, 50 rebalances, brokers away, the burst, and 10,000 random lives of a mapping' \
	  'soak    ten minutes of everything at once, with faults: Mosquitto, Kafka, emulators of AWS, two functions' \
	  'fuzz    ten minutes of random bytes for each reader of packages, filters, frames and signatures' \
	  'bench   ratios against named baselines' \
	  'sbom    write dist/bridge.cdx.json: the packages that bridge is shipped with' \
	  'lock    write requirements/*.txt anew' \
	  'image   build the container image' \
	  'clean   remove what make made'

# --- environments -------------------------------------------------------------------------------------

%/bin/pip:
	@requirements/venv.sh $* $(if $(findstring -3.,$*),$(lastword $(subst ., ,$*)))

%/.stamp-run: requirements/build.txt requirements/run.txt pyproject.toml | %/bin/pip
	@echo "installing what bridge needs into $*"
	@$*/bin/python $(LOCKED) -r requirements/build.txt
	@$*/bin/python $(LOCKED) -r requirements/run.txt
	@$*/bin/python $(PIP) --editable .
	@touch $@

# What functions may import without shipping it, as on AWS: a folder of its own, last on their path.
%/.stamp-functions: requirements/functions.txt | %/.stamp-run
	@rm -rf $*/share/bridge/packages
	@$*/bin/python $(LOCKED) --target $*/share/bridge/packages -r requirements/functions.txt
	@touch $@

# A layer of functions in tests: wheels with code of the machine, for this Python.
%/.stamp-layer: requirements/layer.txt | %/.stamp-run
	@rm -rf $*/share/layer
	@$*/bin/python $(LOCKED) --target $*/share/layer/python -r requirements/layer.txt
	@touch $@

%/.stamp-test: requirements/test.txt %/.stamp-run %/.stamp-functions %/.stamp-layer
	@echo "installing what the tests need into $*"
	@$*/bin/python $(LOCKED) -r requirements/test.txt
	@touch $@

$(VENV)/.stamp-fuzz $(VENV)/.stamp-sbom: $(VENV)/.stamp-%: requirements/%.txt $(VENV)/.stamp-test
	@$(BIN)/python $(LOCKED) -r $<
	@touch $@

.PRECIOUS: %/bin/pip %/.stamp-run %/.stamp-functions %/.stamp-layer %/.stamp-test

# --- for users ----------------------------------------------------------------------------------------

run: $(VENV)/.stamp-run $(VENV)/.stamp-functions
	@exec $(BIN)/bridge run --watch config/quickstart.toml

# --- for developers -----------------------------------------------------------------------------------

test:
	@$(MAKE) check
	@$(MAKE) fuzz SECONDS_EACH=20
	@$(MAKE) sbom
	@$(MAKE) integration
	@$(MAKE) asyncio
	@$(MAKE) pythons
	@$(MAKE) crash-quick

check: $(VENV)/.stamp-test
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@requirements/apt.sh $(BOOTSTRAPS) $(NETWORKS)
	@requirements/npm.sh $(VENV) || [ "$${CI:-}" != true ]
	$(BIN)/pytest -n 2 -m 'not kafka and not aws and not mqtt' tests/unit tests/contract tests/test_layout.py

# Apache Kafka; without it noida-db stands in, except in CI.
kafka: $(VENV)/.stamp-test
	@requirements/apt.sh kcat:kcat
	@requirements/kafka.sh $(VENV)/share/kafka || [ "$${CI:-}" != true ]
	@$(BIN)/python -m tests.brokers.kafka

# Services of AWS, emulated: ministack, moto server, kinesis-local. What is missing is skipped, except in CI.
aws: $(VENV)/.stamp-test
	@requirements/services.sh $(VENV)/share || [ "$${CI:-}" != true ]

# Mosquitto and its clients, from Debian.
mqtt: $(VENV)/.stamp-test
	@requirements/apt.sh mosquitto:mosquitto mosquitto-clients:mosquitto_pub || [ "$${CI:-}" != true ]

# Functions of compiled languages, with AWS's libraries.
languages: $(VENV)/.stamp-test
	@requirements/languages.sh $(VENV)/share/languages || [ "$${CI:-}" != true ]

integration: kafka aws mqtt languages
	@requirements/apt.sh bubblewrap:bwrap tini:tini faketime:faketime $(BOOTSTRAPS) $(NETWORKS)
	$(BIN)/pytest -n 2 -rs -m 'kafka or aws or mqtt' tests/contract
	$(BIN)/pytest -n 2 $(WHOLE) tests --ignore tests/unit --ignore tests/contract --ignore tests/crash --ignore tests/test_layout.py

# The other loop. Unit tests run on it under the other Pythons; where none is here, under this one.
asyncio: kafka aws mqtt
	BRIDGE_LOOP=asyncio $(BIN)/pytest -n 2 -rs -m 'kafka or aws or mqtt' tests/contract tests/integration/test_mqtt_source.py

pythons: $(VENV)/.stamp-test
	@own=$$($(BIN)/python -c 'import sys; print(sys.version_info[1])'); ran=; \
	for minor in $(MINORS); do \
	  if [ $$minor = $$own ]; then continue; fi; \
	  if ! PYTHON= requirements/venv.sh --find $$minor >/dev/null; then echo "Python 3.$$minor is not here"; continue; fi; \
	  PYTHON= $(MAKE) $(VENV)-3.$$minor/.stamp-test; \
	  $(MAKE) elsewhere IN=$(VENV)-3.$$minor; ran=1; \
	done; \
	[ -n "$$ran" ] || $(MAKE) elsewhere IN=$(VENV)

elsewhere:
	@requirements/apt.sh $(BOOTSTRAPS) $(NETWORKS)
	@requirements/npm.sh $(IN) || [ "$${CI:-}" != true ]
	BRIDGE_LOOP=asyncio $(IN)/bin/pytest -n 2 -m 'not kafka and not aws and not mqtt' tests/unit tests/contract

# Those of Kafka, AWS and MQTT wait more than they work: two at once.
crash-quick: kafka aws mqtt
	BRIDGE_CRASH_KILLS=$(KILLS) $(BIN)/pytest $(WHOLE) -m 'crash and not slow and not kafka and not aws and not mqtt' tests/crash
	BRIDGE_CRASH_KILLS=$(KILLS) $(BIN)/pytest -n 2 $(WHOLE) -m 'crash and not slow and (kafka or aws or mqtt)' tests/crash

crash: kafka aws mqtt
	BRIDGE_CRASH_KILLS=100 BRIDGE_CRASH_STOPS=50 $(BIN)/pytest -rA tests/crash
	BRIDGE_LIVES=$(LIVES) $(BIN)/pytest -n 2 --timeout 7200 tests/unit/pipeline/streams/test_simulation.py

# As a user of the container has it: every broker at once, and what goes wrong with them.
soak: kafka aws mqtt
	$(BIN)/python -m tests.soak --minutes $(MINUTES)

# Random bytes, guided by coverage, for what reads untrusted input.
fuzz: $(VENV)/.stamp-test $(VENV)/.stamp-fuzz
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS_EACH)

# What bridge is shipped with: the packages of an environment that has nothing else, as CycloneDX.
sbom: $(VENV)/.stamp-sbom
	@rm -rf $(VENV)-sbom
	@$(BIN)/python -m venv --without-pip $(VENV)-sbom
	@for of in run functions; do PIP_PYTHON=$(VENV)-sbom/bin/python $(BIN)/python $(LOCKED) -r requirements/$$of.txt; done
	@mkdir -p dist
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file dist/bridge.cdx.json $(VENV)-sbom

bench: $(VENV)/.stamp-test aws mqtt
	@requirements/apt.sh wrk:wrk
	$(BIN)/python -m tests.bench $(BENCH)

lock: $(VENV)/.stamp-test
	$(LOCK) pyproject.toml -o requirements/run.txt
	$(LOCK) requirements/build.in -c requirements/run.txt -o requirements/build.txt
	$(LOCK) pyproject.toml requirements/test.in -c requirements/run.txt -c requirements/build.txt -o requirements/test.txt
	$(LOCK) requirements/functions.in -c requirements/test.txt -o requirements/functions.txt
	$(LOCK) requirements/layer.in -o requirements/layer.txt
	$(LOCK) requirements/fuzz.in -o requirements/fuzz.txt
	$(LOCK) requirements/sbom.in -c requirements/test.txt -o requirements/sbom.txt
	$(LOCK) requirements/services.in -o requirements/services.txt

image:
	@docker info >/dev/null 2>&1 || { echo 'no Docker engine answers; tests/integration/test_image.py runs the steps without one' >&2; exit 1; }
	docker build --tag bridge .

clean:
	rm -rf $(VENV) $(VENV)-sbom $(VENV)-3.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	find bridge tests config -name __pycache__ -type d -prune -exec rm -rf {} +

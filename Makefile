# drumroll: `make run` and `make test` do everything on a fresh machine; `make help` lists the rest.

VARIANT ?= release
BUILD   := build/$(VARIANT)
CC      ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif

# Folders in dependency order: a file may include its own folder and those before it.
FOLDERS := configs quant policy rollout trainer_bridge scheduler

PACKAGES := mpich libuv msgpack libcyaml yaml-0.1 jansson libpcre2-8 libutf8proc sqlite3 libzstd libxxhash openblas cmocka
DEBIAN   := gcc make pkg-config mpich libmpich-dev libuv1-dev libmsgpack-dev libcyaml-dev libyaml-dev libjansson-dev \
            libpcre2-dev libutf8proc-dev libsqlite3-dev libzstd-dev libxxhash-dev libopenblas-openmp-dev libcmocka-dev python3 python3-msgpack python3-numpy \
            gnuplot-nox

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wcast-qual -Wformat=2 \
        -Wno-missing-field-initializers
BASE := -std=c11 -D_POSIX_C_SOURCE=200809L -I. -ffp-contract=off -fopenmp -g $(WARN)
FLAGS_release := -O3
FLAGS_asan    := -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
FLAGS_tsan    := -O1 -fsanitize=thread
CFLAGS_ALL = $(BASE) $(FLAGS_$(VARIANT)) $(PKG_CFLAGS) $(CFLAGS)
LDFLAGS_ALL = -Wl,--as-needed -fopenmp $(FLAGS_$(VARIANT)) $(LDFLAGS)

Q := $(if $(V),,@)
# As many compilers as there are cores, unless make was told how many.
JOBS = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))

SOURCES := $(foreach f,$(FOLDERS),$(wildcard $(f)/*.c $(f)/*/*.c))
MAIN    := scheduler/main.c
LIBS    := $(foreach f,$(FOLDERS),$(BUILD)/lib$(f).a)
UNIT    := $(foreach f,$(FOLDERS),$(wildcard tests/$(f)/test_*.c))
UNIT_BIN := $(UNIT:%.c=$(BUILD)/%)
SUPPORT := $(BUILD)/libsupport.a
FUZZ    := $(wildcard tests/fuzz/fuzz_*.c)
FUZZED  := $(wildcard configs/*.c policy/tokenizer/*.c policy/chat/*.c rollout/prompts*.c scheduler/verifier/verifier_lines.c) \
           policy/utf8.c policy/file.c policy/safetensors.c rollout/trajectory.c rollout/sampling/noise.c \
           trainer_bridge/wire/frame.c trainer_bridge/wire/message.c trainer_bridge/wire/codec.c trainer_bridge/server/http_request.c \
           scheduler/ranks/rank_messages.c scheduler/ranks/transport.c scheduler/ranks/rank_guard.c
FUZZ_BIN := $(patsubst tests/fuzz/%.c,build/fuzz/%,$(FUZZ))
FUZZ_SECONDS ?= 600
SIM_SEEDS ?= 2000000
BENCH_BIN := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/bench/bench_*.c))

.PHONY: help run run-torch test test-all bench bench-peer fuzz sim build unit deps deps-plots clean quickstart-model
.DEFAULT_GOAL := help

## help: this list
help:
	@sed -n 's/^## //p' Makefile

## run: install what is missing, build, and train the quickstart policy on a small mpirun cluster
run: deps
	@[ -x build/drumroll ] || echo "building build/drumroll (about a minute)"
	$(Q)$(MAKE) --no-print-directory $(JOBS) build
	$(Q)mpirun -n 3 build/drumroll run configs/quickstart/run.yaml $(ARGS)

## run-torch: the same with a GRPO trainer in PyTorch (trainer_bridge/python/examples); installs Debian's python3-torch
TORCH_STEPS ?= 40
run-torch: deps
	$(Q)python=; for p in python3 /usr/bin/python3; do \
	  [ -n "$$python" ] || ! $$p -c 'import torch, msgpack, numpy' 2>/dev/null || python=$$p; done; \
	if [ -z "$$python" ]; then \
	  command -v apt-get >/dev/null || { echo "run-torch: needs a Python with torch, msgpack and numpy; this machine has no apt-get" >&2; exit 1; }; \
	  echo "run-torch: installing python3-torch (some 700 MB)"; sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get update -q >build-deps.log 2>&1 && \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends python3-torch python3-msgpack python3-numpy >>build-deps.log 2>&1 || { \
	    tail -n 20 build-deps.log >&2; echo "run-torch: apt-get failed; the whole log is build-deps.log" >&2; exit 1; }; \
	  rm -f build-deps.log; python=/usr/bin/python3; fi; \
	$(MAKE) --no-print-directory $(JOBS) build || exit 1; \
	dir=runs/quickstart-torch; n=2; while [ -e $$dir ]; do dir=runs/quickstart-torch-$$n; n=$$((n + 1)); done; \
	mpirun -n 3 build/drumroll run configs/quickstart/run.yaml --set run.dir=$$dir --set run.steps=$(TORCH_STEPS) \
	  --set eval.every=10 --set trainer.kind=external & run=$$!; \
	$$python -B trainer_bridge/python/examples/grpo_torch.py unix:$$dir/bridge.sock configs/quickstart \
	  --metrics $$dir/trainer_metrics.jsonl $(ARGS) || { kill $$run; wait $$run; exit 1; }; \
	wait $$run

## test: install what is missing, build, and run every test
test: deps deps-plots
	$(Q)tests/run $(VARIANT)

## test-all: the same, then again under address+undefined and thread sanitizers
test-all: test
	$(Q)tests/run asan
	$(Q)tests/run tsan

## bench: measurements (never fail a build); tests/bench/README.md says what they mean
bench: deps
	$(Q)$(MAKE) --no-print-directory build $(BENCH_BIN)
	$(Q)for b in "$(BUILD)/drumroll bench kernels" $(BENCH_BIN); do echo "== $$b"; $$b || echo "$$b: exit status $$?"; done

## bench-peer: side by side with llama.cpp's prebuilt libraries (npm, below build/peer); results in build/bench-peer.jsonl
bench-peer: deps
	$(Q)$(MAKE) --no-print-directory build $(BUILD)/tests/bench/peer/ours
	$(Q)tests/bench/peer/install.sh build/peer
	$(Q)python3 -B tests/bench/peer/compare.py --ours $(BUILD)/tests/bench/peer/ours $(ARGS)

## fuzz: fuzz the parsers with clang's libFuzzer, FUZZ_SECONDS (600) each; findings go to build/fuzz
fuzz: deps
	$(Q)command -v clang >/dev/null || { echo "fuzz: clang is missing, whose libFuzzer this needs: apt-get install clang" >&2; exit 1; }
	$(Q)$(MAKE) --no-print-directory $(FUZZ_BIN)
	$(Q)for f in $(FUZZ_BIN); do \
	  t=$${f#build/fuzz/fuzz_}; mkdir -p $$f.found; dict=; [ ! -f tests/fuzz/$$t.dict ] || dict=-dict=tests/fuzz/$$t.dict; \
	  $$f -max_total_time=$(FUZZ_SECONDS) -max_len=4096 $$dict -timeout=60 -artifact_prefix=$$f. $$f.found tests/fuzz/$$t || exit 1; \
	done

## sim: the scheduler in SIM_SEEDS (2000000) hostile worlds beyond those of `make test`, from SIM_FIRST on, on every core
sim: deps
	$(Q)$(MAKE) --no-print-directory $(BUILD)/tests/scheduler/test_simulator
	$(Q)n=$$(nproc); each=$$((($(SIM_SEEDS) + n - 1) / n)); first=$(or $(SIM_FIRST),20001); pids=; \
	for i in $$(seq 0 $$((n - 1))); do \
	  SIM_FIRST=$$((first + i * each)) SIM_SEEDS=$$each $(BUILD)/tests/scheduler/test_simulator & pids="$$pids $$!"; done; \
	status=0; for p in $$pids; do wait $$p || status=1; done; exit $$status

## build: the program at build/drumroll (VARIANT=release|asan|tsan puts others below build/VARIANT)
build: $(BUILD)/drumroll
	$(Q)if [ $(BUILD) = build/release ]; then ln -sf release/drumroll build/drumroll; fi

unit: $(UNIT_BIN) $(FUZZ:%.c=$(BUILD)/%) build

## quickstart-model: generate the data and train configs/quickstart anew (what is committed there)
quickstart-model: deps
	$(Q)$(MAKE) --no-print-directory build
	$(Q)build/drumroll pretrain configs/quickstart/pretrain.yaml --out configs/quickstart

## deps: find libraries by pkg-config, install missing Debian packages
deps:
	$(Q)missing=; \
	command -v gcc >/dev/null && command -v pkg-config >/dev/null && command -v mpirun >/dev/null && command -v python3 >/dev/null || missing=tools; \
	[ -n "$$missing" ] || for p in $(PACKAGES); do pkg-config --exists $$p || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  if ! command -v apt-get >/dev/null; then \
	    echo "deps: missing:$$missing; this machine has no apt-get: install the equivalents of $(DEBIAN)" >&2; exit 1; fi; \
	  sudo=; if [ "$$(id -u)" != 0 ]; then sudo=sudo; command -v sudo >/dev/null || { \
	    echo "deps: missing:$$missing; not root and no sudo: run 'apt-get install $(DEBIAN)' as root" >&2; exit 1; }; fi; \
	  echo "deps: missing:$$missing; installing Debian packages"; \
	  $$sudo apt-get update -q >build-deps.log 2>&1 && \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $(DEBIAN) >>build-deps.log 2>&1 || { \
	    tail -n 20 build-deps.log >&2; echo "deps: apt-get failed; the whole log is build-deps.log" >&2; exit 1; }; \
	  rm -f build-deps.log; \
	fi

# `drumroll report` draws with it and says so where it is missing; nothing else needs it.
deps-plots:
	$(Q)command -v gnuplot >/dev/null || { \
	  command -v apt-get >/dev/null || { echo "deps: missing: gnuplot; this machine has no apt-get: install it" >&2; exit 1; }; \
	  echo "deps: missing: gnuplot; installing Debian's gnuplot-nox"; sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get update -q >build-deps.log 2>&1 && \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends gnuplot-nox >>build-deps.log 2>&1 || { \
	    tail -n 20 build-deps.log >&2; echo "deps: apt-get failed; the whole log is build-deps.log" >&2; exit 1; }; \
	  rm -f build-deps.log; }

## clean: remove build/
clean:
	$(Q)rm -rf build

# Below: only evaluated where something is compiled.
ifneq ($(filter build unit $(BUILD)/% build/fuzz/%,$(MAKECMDGOALS)),)
PKG_CFLAGS := $(shell pkg-config --cflags $(PACKAGES))
PKG_LIBS   := $(shell pkg-config --libs $(PACKAGES))
endif

FLAGS_KERNEL = $(if $(filter %_avx2.o,$@),-march=x86-64-v3) $(if $(filter %_avx512.o %_avx512vnni.o,$@),-march=x86-64-v4 -mprefer-vector-width=512) \
               $(if $(filter %_avx512vnni.o,$@),-mavx512vnni)

$(BUILD)/%.o: %.c Makefile
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) $(FLAGS_KERNEL) -MMD -MP -c $< -o $@

define FOLDER_LIB
$(BUILD)/lib$(1).a: $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(MAIN),$(wildcard $(1)/*.c $(1)/*/*.c)))
	$$(Q)rm -f $$@
	$$(Q)$$(AR) rcs $$@ $$^
endef
$(foreach f,$(FOLDERS),$(eval $(call FOLDER_LIB,$(f))))

$(BUILD)/drumroll: $(BUILD)/scheduler/main.o $(LIBS)
	$(Q)$(CC) $(LDFLAGS_ALL) $< $(call reverse,$(LIBS)) $(PKG_LIBS) -lm -o $@

reverse = $(if $(1),$(call reverse,$(wordlist 2,99,$(1))) $(firstword $(1)))
# Libraries of a folder and those before it, last first.
upto = $(call reverse,$(foreach f,$(call upto_list,$(1),$(FOLDERS)),$(BUILD)/lib$(f).a))
upto_list = $(if $(2),$(firstword $(2)) $(if $(filter $(1),$(firstword $(2))),,$(call upto_list,$(1),$(wordlist 2,99,$(2)))))

# Helpers of the tests: an archive, so that a test links what it uses.
$(SUPPORT): $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/support/*.c))
	$(Q)rm -f $@
	$(Q)$(AR) rcs $@ $^

define UNIT_TEST
$(BUILD)/$(1:.c=): $(BUILD)/$(1:.c=.o) $(SUPPORT) $(call upto,$(2))
	$$(Q)$$(CC) $$(LDFLAGS_ALL) $$^ $$(PKG_LIBS) -lm -o $$@
endef
$(foreach f,$(FOLDERS),$(foreach t,$(wildcard tests/$(f)/test_*.c),$(eval $(call UNIT_TEST,$(t),$(f)))))
$(foreach t,$(wildcard tests/bench/bench_*.c) tests/bench/peer/ours.c,$(eval $(call UNIT_TEST,$(t),scheduler)))

# A fuzz target with a main that replays its corpus.
$(FUZZ:%.c=$(BUILD)/%): $(BUILD)/%: $(BUILD)/%.o $(BUILD)/tests/fuzz/replay.o $(call upto,scheduler)
	$(Q)$(CC) $(LDFLAGS_ALL) $^ $(PKG_LIBS) -lm -o $@

# The same with libFuzzer's main; what it watches is compiled for it.
FUZZ_FLAGS := -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined
build/fuzz/%.o: %.c Makefile
	$(Q)mkdir -p $(@D)
	$(Q)clang $(filter-out -fopenmp,$(BASE)) $(PKG_CFLAGS) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link -MMD -MP -c $< -o $@
$(FUZZ_BIN): build/fuzz/%: build/fuzz/tests/fuzz/%.o $(FUZZED:%.c=build/fuzz/%.o)
	$(Q)clang $(FUZZ_FLAGS) -fsanitize=fuzzer $^ $(PKG_LIBS) -lm -o $@

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

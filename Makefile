# `make serve` and `make test` do their own set-up; a second run of either does none again.
# The set-up for serving (small) is apart from the one for development.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SERVE  := $(VENV)/.serve-ready
DEV    := $(VENV)/.dev-ready
PIP    := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet
SOURCES := src tests $(wildcard benchmarks)
CLIENTS := build/clients
ARGS   ?=

.PHONY: serve test fuzz kill-test storm-test browser-test genai-test ray-test check format proto bench-gateway bench-protocols bench-streams bench-engine bench-steps clean

serve: $(SERVE)  ## set up, fetch the embedded model and serve it on 127.0.0.1:8000
	@exec $(BIN)/headrace serve $(ARGS)

test: $(DEV)  ## all tests, with the real model in a real engine process
	@$(BIN)/headrace models pull
	@$(BIN)/python -m pytest $(ARGS)

check: $(DEV)  ## format, lint, types, room rules
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(DEV)  ## rewrite the sources as `check` wants them
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench-gateway: $(DEV)  ## CPU and memory in front of a mock engine, beside the peers
	$(BIN)/python -m benchmarks.gateway $(ARGS)

bench-protocols: $(DEV)  ## an event over SSE, NDJSON, gRPC and gRPC-Web, beside Python's gRPC servers
	$(BIN)/python -m benchmarks.protocols $(ARGS)

bench-streams: $(DEV)  ## 9,500 streams of one token a second
	$(BIN)/python -m benchmarks.streams $(ARGS)

bench-steps: $(DEV)  ## bytecodes and calls of a request and of an event: the same on a busy machine
	$(BIN)/python -m benchmarks.steps $(ARGS)

bench-engine: $(DEV)  ## the embedded engine through the server and asked directly
	$(BIN)/python -m benchmarks.engine $(ARGS)

ray-test: build/ray/.ready  ## a job on a local Ray with two workers; Ray (large) is fetched into an environment of its own
	@build/ray/bin/python -m pytest tests/cli/test_batch_ray.py $(ARGS)

browser-test: $(CLIENTS)/.ready $(DEV)  ## the JavaScript SDK and EventSource in a real browser; needs node, npm, chromium
	@$(BIN)/python -m pytest tests/clients $(ARGS)

proto:  ## generate the code of proto/ again; the compiler has an environment of its own
	@test -x build/protoc/bin/python || $(PYTHON) -m venv build/protoc
	@build/protoc/bin/python -m pip install --quiet --disable-pip-version-check grpcio-tools==1.80.1
	@build/protoc/bin/python -m grpc_tools.protoc -Iproto --python_out=build/protoc --pyi_out=build/protoc \
		proto/headrace/v1/headrace.proto proto/inference/open_inference.proto
	@cp build/protoc/headrace/v1/headrace_pb2.py build/protoc/headrace/v1/headrace_pb2.pyi src/headrace/protocols/grpc/
	@sed s/descriptor_pool.Default/descriptor_pool.DescriptorPool/ build/protoc/inference/open_inference_pb2.py \
		> src/headrace/protocols/grpc/open_inference_pb2.py  # names of others, who may be in the same process
	@cp build/protoc/inference/open_inference_pb2.pyi src/headrace/protocols/grpc/

kill-test: $(DEV)  ## 200 random kills of server, engine and client, and 100 in the middle of a job; nothing may be lost, nothing come twice
	@$(BIN)/headrace models pull
	$(BIN)/python -m tests.kill.campaign --kills 200 $(ARGS)
	KILLS=100 $(BIN)/python -m pytest --timeout 0 tests/kill/test_jobs.py

fuzz: $(DEV)  ## what is said and asked over any protocol, at random: 50 times the examples of `make test`
	FUZZ=50 $(BIN)/python -m pytest --timeout 0 tests/protocols/test_any_body.py tests/protocols/grpc/test_any_*.py tests/protocols/kserve/test_any_*.py \
		tests/test_protocols_machine.py $(ARGS)

genai-test: build/genai/.ready  ## the embedded model as ONNX beside llama.cpp: greedy texts, tokens a second; fetches torch
	@test -d build/genai/model || build/genai/bin/headrace models convert -o build/genai/model
	build/genai/bin/python -m benchmarks.genai build/genai/model $(ARGS)

storm-test: $(DEV)  ## 1,000 clients leave at once, ten times; nothing may be left of them
	$(BIN)/python -m tests.storm.storms --storms 10 --clients 1000 $(ARGS)

build/ray/.ready: pyproject.toml
	@test -x build/ray/bin/python || $(PYTHON) -m venv build/ray
	@echo "Fetching Ray …"
	@build/ray/bin/python -m pip install --quiet --disable-pip-version-check -e '.[ray]' pytest pytest-timeout
	@touch $@

build/genai/.ready: pyproject.toml constraints.txt
	@test -x build/genai/bin/python || $(PYTHON) -m venv build/genai
	@PIP_CONSTRAINT=constraints.txt build/genai/bin/python -m pip install --quiet --disable-pip-version-check -e '.[genai-tools]'
	@touch $@

$(CLIENTS)/.ready: tests/clients/package.json
	@missing() { echo "browser-test needs $$1, which is not installed" >&2; exit 1; }; \
	command -v node >/dev/null || missing node; \
	command -v npm >/dev/null || missing npm; \
	{ command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null || missing chromium
	@echo "Fetching the OpenAI SDK for JavaScript …"
	@mkdir -p $(CLIENTS) && cp $< $(CLIENTS)
	@npm install --prefix $(CLIENTS) --no-package-lock --no-audit --no-fund --loglevel=error
	@touch $@

clean:  ## delete what make and the tools made; the model cache and the state folder stay
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis htmlcov .coverage*
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@echo "Making $(VENV) …"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) pip

$(SERVE): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing headrace …"
	@$(PIP) --editable .
	@touch $@

$(DEV): $(SERVE)
	@echo "Installing the tools for development …"
	@$(PIP) --editable '.[dev]'
	@touch $@

# One word per chore. Everything is installed into .venv; each chore is safe to repeat.
# PYTHON=/path/to/python chooses the interpreter for .venv, ARGS='…' is handed to serve, test and bench;
# JOBS=N runs the tests in N processes, by default one for each core.
.POSIX:
.PHONY: all install engine images serve test lint fix bench docs clean

BIN = .venv/bin
CODE = kernel plugins tests benchmarks
ARGS =
JOBS = auto

all: test lint

install:
	@sh tools/install.sh run

engine:
	@sh tools/install.sh engine

images:
	@sh tools/install.sh images

serve: install
	@$(BIN)/lollms serve $(ARGS)

test:
	@sh tools/install.sh test
	@# Hundreds of servers start in tests: what Python compiles is kept, whatever the environment wishes.
	unset PYTHONDONTWRITEBYTECODE; $(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint:
	@sh tools/install.sh lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix:
	@sh tools/install.sh lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench:
	@sh tools/install.sh test
	@$(BIN)/python -m benchmarks $(ARGS)

docs:
	@sh tools/install.sh lint
	$(BIN)/python -m lollms_kernel.config.reference > docs/configuration.md
	$(BIN)/python -m lollms_kernel.config.json_schema > docs/schema/main_config.schema.json
	$(BIN)/python -m lollms_kernel.cli.reference > docs/cli.md

clean:
	rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache dist uv.lock
	rm -rf tests/plugins/lollms_transport_socketio/clients/node_modules
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

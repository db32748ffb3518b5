# Every target sets up what it needs. PYTHON is the interpreter that .venv is made with.
SHELL := bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.complete
# Imports take half of the time where Python may keep the modules that it has compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test check bench format

setup: $(STAMP)

# Few of the modules are ever imported: Python compiles those then, in half a minute less.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt \
		--editable ".[all]" --group dev
	touch $@

demo: setup
	mkdir -p demo
	time -p $(BIN)/lumina generate --prompts docs/demo-prompts.txt --seed 0 --grid --force \
		-o demo/grid.png

# Compiling tests run beside the others, which often wait for processes that they started.
test: setup
	@JAXTYPING_DISABLE=1 $(BIN)/pytest -m "compile and not gpu" \
		$(or $(ARGS),$(shell grep -rl "mark.compile" tests) tests/test_docs.py) \
		> .venv/compile.log 2>&1 & \
	compiling=$$!; status=0; \
	PYTHONHASHSEED=0 OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist worksteal $(ARGS) \
		|| status=$$?; \
	wait $$compiling || status=$$?; cat .venv/compile.log; exit $$status

check: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright
	$(BIN)/codespell
	$(MAKE) test

bench: setup
	$(BIN)/python benchmarks/forward.py
	$(BIN)/python benchmarks/pipeline.py lumina-mini

format: setup
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

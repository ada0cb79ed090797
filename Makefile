# make demo   trains, measures and reports a VAE on the embedded MNIST: runs/demo/report.html
# make test   ruff, mypy --strict and the tests
# make docs   the guides and the reference as pages: docs/_build/html/index.html
# Each sets up its own environment in .venv; PYTHON=python3.12 chooses the interpreter.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check bench docs clean

demo: .venv/ready
	$(BIN)/vaelab demo --out runs/demo

test: check
	$(BIN)/python -m pytest

check: .venv/ready-dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

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
	rm -rf docs/_build .venv .mypy_cache .ruff_cache .pytest_cache

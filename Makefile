PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LABEL_STUDIO_VENV := .venv-label-studio

.PHONY: demo test test-slow test-label-studio lint bench

demo: $(VENV)/installed
	$(BIN)/python launch.py --config=configs/digits_vae.py

test: $(VENV)/installed
	$(BIN)/python -m pytest

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

test-label-studio: $(VENV)/installed $(LABEL_STUDIO_VENV)/installed
	LABEL_STUDIO=$(abspath $(LABEL_STUDIO_VENV))/bin/label-studio $(BIN)/python -m pytest -n 0 -m label_studio

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(VENV)/peers
	$(BIN)/python benchmarks/loop.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/densities.py
	$(BIN)/python benchmarks/conv_vae.py
	$(BIN)/python benchmarks/importance.py
	$(BIN)/python benchmarks/kmeans.py
	$(BIN)/python benchmarks/kcenter.py
	$(BIN)/python benchmarks/badge.py
	$(BIN)/python benchmarks/tsne.py
	$(BIN)/python benchmarks/first_batches.py
	$(BIN)/python benchmarks/streaming.py --num=1000000
	$(BIN)/python benchmarks/scan.py --num=10000

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/peers: $(VENV)/installed benchmarks/requirements.txt
	$(BIN)/python -m pip install --quiet -r benchmarks/requirements.txt
	touch $@

$(LABEL_STUDIO_VENV)/installed: tests/label_studio/requirements.txt
	$(PYTHON) -m venv $(LABEL_STUDIO_VENV)
	$(LABEL_STUDIO_VENV)/bin/python -m pip install --quiet -r tests/label_studio/requirements.txt
	touch $@

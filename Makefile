PYTHON ?= python3
SIZE ?= full
VENV ?= .venv
BIN := $(VENV)/bin
LIGHT_VENV ?= .venv-light
LOWEST_VENV ?= .venv-lowest
PACKAGE_VENV ?= .venv-package
LABEL_STUDIO_VENV := .venv-label-studio
DOCS_VENV ?= .venv-docs

.PHONY: demo test test-slow test-lowest test-label-studio test-browser light package notebooks lint types docs results bench

demo: $(VENV)/installed
	$(BIN)/python launch.py --config=configs/digits_vae.py

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow

# Old releases warn of what they do themselves; only failures count.
test-lowest: $(LOWEST_VENV)/installed
	$(LOWEST_VENV)/bin/python -m pytest -W default tests/test_loop.py tests/test_kernels.py tests/test_strategies.py
	$(LOWEST_VENV)/bin/python -m pytest -W default tests/test_launch.py -k test_digits_vae

test-label-studio: $(VENV)/installed-dev $(LABEL_STUDIO_VENV)/installed
	LABEL_STUDIO=$(abspath $(LABEL_STUDIO_VENV))/bin/label-studio $(BIN)/python -m pytest -n 0 -m label_studio

test-browser: $(VENV)/browser
	$(BIN)/python -m pytest -n 0 -m browser tests/test_report_in_browser.py tests/test_site_in_browser.py

light: $(LIGHT_VENV)/installed
	$(LIGHT_VENV)/bin/python tests/light_usage.py

# The README's examples, out of each archive in an environment of its own. With -P nothing is imported from here.
package:
	rm -rf dist
	$(MAKE) light
	for archive in dist/*.whl dist/*.tar.gz; do \
		$(PYTHON) -m venv --clear $(PACKAGE_VENV) && \
		$(PACKAGE_VENV)/bin/python -m pip install --quiet --constraint requirements.txt "$$archive[experiments]" && \
		$(PACKAGE_VENV)/bin/python -P -m doctest README.md || exit 1; \
	done

notebooks: $(VENV)/installed-dev
	$(BIN)/python tests/test_notebooks.py

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The second is of a program elsewhere that has latent_al installed: py.typed has to be there.
types: $(VENV)/installed-dev $(LIGHT_VENV)/installed
	$(BIN)/mypy
	cd tests && $(abspath $(BIN))/mypy --strict --config-file= --cache-dir=../.mypy_cache/light --follow-imports=silent \
		--python-executable $(abspath $(LIGHT_VENV))/bin/python light_usage.py

# The package is read, not imported, so that neither it nor jax is installed there.
docs: $(DOCS_VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict

# MNIST is the folder of its IDX files, CIFAR10 one of images, NETWORK a pretrained one; what is not given is left out.
results: $(VENV)/installed-dev
	$(BIN)/python benchmarks/results.py --out=runs/results-$(SIZE) --size=$(SIZE) $(if $(MNIST),--mnist=$(MNIST)) \
		$(if $(CIFAR10),--cifar10=$(CIFAR10)) $(if $(NETWORK),--network=$(NETWORK))

bench: $(VENV)/peers
	$(BIN)/python benchmarks/imports.py
	$(BIN)/python benchmarks/eager.py
	$(BIN)/python benchmarks/loop.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/densities.py
	$(BIN)/python benchmarks/conv_vae.py
	$(BIN)/python benchmarks/importance.py
	$(BIN)/python benchmarks/kmeans.py
	$(BIN)/python benchmarks/kcenter.py
	$(BIN)/python benchmarks/coverage.py
	$(BIN)/python benchmarks/costs.py
	$(BIN)/python benchmarks/badge.py
	$(BIN)/python benchmarks/bait.py
	$(BIN)/python benchmarks/tsne.py
	$(BIN)/python benchmarks/initial_sets.py
	$(BIN)/python benchmarks/streaming.py --num=1000000
	$(BIN)/python benchmarks/scan.py --num=10000

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

# What setuptools has built before would be packed with it.
dist/checked: $(VENV)/installed-dev README.md $(shell find latent_al -name '*.py' -o -name py.typed)
	rm -rf build dist
	$(BIN)/python -m build --quiet
	$(BIN)/twine check --strict dist/*
	$(BIN)/python tests/archives.py
	touch $@

# As anyone installs it, jax and jaxtyping alone.
$(LIGHT_VENV)/installed: requirements.txt dist/checked
	$(PYTHON) -m venv --clear $(LIGHT_VENV)
	$(LIGHT_VENV)/bin/python -m pip install --quiet --constraint requirements.txt dist/*.whl
	touch $@

$(LOWEST_VENV)/installed: pyproject.toml
	$(PYTHON) -m venv --clear $(LOWEST_VENV)
	$(LOWEST_VENV)/bin/python -m pip install --quiet uv
	$(LOWEST_VENV)/bin/uv pip install --quiet --python $(LOWEST_VENV)/bin/python --resolution lowest-direct \
		--editable '.[dev,experiments,labelling]'
	touch $@

$(VENV)/peers: $(VENV)/installed benchmarks/requirements.txt
	$(BIN)/python -m pip install --quiet -r benchmarks/requirements.txt
	touch $@

$(VENV)/browser: $(VENV)/installed-dev tests/browser/requirements.txt
	$(BIN)/python -m pip install --quiet -r tests/browser/requirements.txt
	touch $@

$(LABEL_STUDIO_VENV)/installed: tests/label_studio/requirements.txt
	$(PYTHON) -m venv $(LABEL_STUDIO_VENV)
	$(LABEL_STUDIO_VENV)/bin/python -m pip install --quiet -r tests/label_studio/requirements.txt
	touch $@

$(DOCS_VENV)/installed: requirements-docs.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --quiet -r requirements-docs.txt
	touch $@

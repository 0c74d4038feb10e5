# What a newcomer needs: make run, make test. Everything else is for those who stay.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CODE   := simulator ingest edge config beilun

.PHONY: help run serve test check bench servers docs clean pins

help:
	@echo "make run      set up and run a whole factory to its verdict"
	@echo "make serve    set up and open the operators' page of the newest run"
	@echo "make test     set up and run the tests"
	@echo "make check    ruff, mypy, pyright, import rules"
	@echo "make bench    benchmarks (they assert what they computed)"
	@echo "make servers  install the real servers (Debian, as root): mosquitto, victoria-metrics, influxdb, chromium"
	@echo "make docs     write the generated parts of docs/ anew"
	@echo "make pins     renew constraints.txt from what pip finds today"
	@echo "make clean    remove everything that these made"

run: $(VENV)/.run
	$(BIN)/beilun run quickstart

serve: $(VENV)/.ui
	$(BIN)/beilun serve

test: $(VENV)/.dev
	$(BIN)/pytest -n 2 --dist worksteal

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/pyright

bench: $(VENV)/.dev
	$(BIN)/pytest bench --benchmark-only --benchmark-sort=name -p no:xdist

servers:
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends mosquitto victoria-metrics influxdb chromium chromium-driver openssl

docs: $(VENV)/.run
	$(BIN)/python -m beilun.documenting docs deploy/grafana/dashboards

pins:
	rm -rf $(VENV)
	$(MAKE) $(VENV)/bin/python
	$(BIN)/pip install -q -e '.[dev]'
	$(BIN)/pip freeze --exclude-editable > constraints.txt

clean:
	rm -rf $(VENV) build dist runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -rf .import_linter_cache *.egg-info
	find $(CODE) tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Beilun needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "this Python cannot make environments; on Debian: apt install python3-venv"; exit 1; }

$(VENV)/.run: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.ui: $(VENV)/.run
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[ui]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

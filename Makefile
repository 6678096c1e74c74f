# The commands of this project. `make demo` and `make test` are all a newcomer needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Debian packages that hive itself needs, and those that its tests need beside them.
RUN_PACKAGES := git bubblewrap
TEST_PACKAGES := $(RUN_PACKAGES) nix-bin chromium fonts-dejavu-core fonts-symbola systemd systemd-container mmdebstrap groff-base \
  cargo curl dropbear-bin netcat-openbsd openssh-client iproute2

.PHONY: demo up test check dist docs bench venv run-packages test-packages lock clean
.DEFAULT_GOAL := demo

demo: venv run-packages ## The main job, in a throw-away hive.
	$(BIN)/hive demo

up: venv ## The daemon, in the foreground.
	$(BIN)/hive up

test: venv test-packages check ## Every check there is.
	$(BIN)/pytest -n 3 --dist loadfile

check: venv ## Formatting, lint, types and import layers.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini tests
	$(BIN)/lint-imports --no-cache

dist: venv ## The wheel, checked, in dist/.
	rm -rf build dist
	$(BIN)/python -m build --wheel
	$(BIN)/twine check --strict dist/*.whl

docs: venv ## The documentation site, in build/docs/.
	$(BIN)/mkdocs build --strict

bench: venv ## Ratios measured in one run; read benchmarks/README.md.
	$(BIN)/python -m benchmarks

venv: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "hive needs Python 3.11 or newer; say which with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

run-packages: PACKAGES := $(RUN_PACKAGES)
test-packages: PACKAGES := $(TEST_PACKAGES)
run-packages test-packages: ## As root on a Debian host, install what is missing; otherwise say so.
	@missing=""; for package in $(PACKAGES); do \
	  dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; \
	else echo "Not installed:$$missing. What needs them is skipped or refused with a reason."; fi

lock: venv ## Pin every dependency anew, with hashes.
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet \
	  --extra dev --extra swarm pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .hypothesis

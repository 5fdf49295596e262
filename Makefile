# make demo, test, test_all, lint, bench, docs, pretrained: each makes the environment in .venv first, once. make web
# builds the page of nms_export --web.
# PYTHON=/path/to/python3 chooses the Python; DEMO_MINUTES is how long the demo trains.

DEMO_MINUTES ?= 10
PYTHON ?= python3 python3.13 python3.12 python3.11 python3.10 python
VENV := .venv
WEB := neural_midi_synth/exporting/web
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
READY := $(VENV)/ready

.PHONY: demo test test_all lint bench docs fuzz pretrained lock clean web

demo: $(READY)
	$(VENV)/bin/python -m neural_midi_synth.commands.demo --minutes $(DEMO_MINUTES) --output out/demo

# A Python that crashes ends the tests: with another one in its place, pytest-xdist 3.8 waits forever for what is left.
test: CHOSEN := -m "not slow"
test test_all: $(READY)
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --max-worker-restart 0 -rs $(CHOSEN)

# Who imports whom is looked at in the package as it is installed, where data_prep is a part of it.
lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	@rm -rf out/lint
	$(VENV)/bin/python setup.py --quiet build_py --build-lib out/lint
	@cp pyproject.toml out/lint
	cd out/lint && $(CURDIR)/$(VENV)/bin/lint-imports --no-cache --no-logo

# How fast each part is, beside the same part of ddsp and Keras: about twenty minutes, on a machine that does nothing else.
bench: $(READY)
	$(VENV)/bin/python benchmarks/bench.py --markdown benchmarks/README.md --plot benchmarks/cost.png

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet --site-dir out/docs
	@echo "The documentation is in out/docs/index.html."

# The page of nms_export --web, which wheels carry: needs Node.js 20.
web: $(WEB)/built/index.html

$(WEB)/built/index.html: $(WEB)/package-lock.json $(WEB)/index.html $(WEB)/vite.config.ts $(wildcard $(WEB)/src/* $(WEB)/public/*)
	cd $(WEB) && npm ci --silent --no-audit --no-fund && npm run --silent build -- --logLevel warn
	@touch $@

# Looks for files that do harm, for as long as you like: midi, reaper, sound, config, instrument or request.
TARGET ?= midi
SECONDS ?= 600
fuzz: $(READY)
	$(PIP) install --quiet --no-deps -r requirements/fuzz.txt
	$(VENV)/bin/python tests/fuzz/fuzz.py $(TARGET) -max_total_time=$(SECONDS) -rss_limit_mb=8192 -timeout=60

# Trains the guitar that comes with the package: about half an hour.
pretrained: $(READY)
	$(VENV)/bin/python data_prep/make_pretrained.py

# Pins everything in requirements/requirements.in, for every Python and platform at once.
lock: $(READY)
	$(PIP) install --quiet uv
	cd requirements && ../$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.10 --no-annotate \
		--override overrides.txt --custom-compile-command "make lock" --output-file ../requirements.txt requirements.in

clean:
	rm -rf $(VENV) $(WEB)/built $(WEB)/node_modules build dist out *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each Python is tried by running it, since one that is on the path may still be a stub or lack venv.
# The pips that come with Python 3.10 and 3.11 warn about the PATH and old packages unless told otherwise.
$(READY): requirements.txt setup.py
	@found=; for python in $(PYTHON); do \
		if "$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' \
			>/dev/null 2>&1; then found="$$python"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "make: none of '$(PYTHON)' is a Python 3.10, 3.11, 3.12 or 3.13 with venv (Debian, Ubuntu: python3-venv)." \
			"Choose one with: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	echo "Making the environment in $(VENV) with $$("$$found" --version): about 3.5 GB, once."; \
	"$$found" -m venv $(VENV)
	$(PIP) install --quiet --no-warn-script-location --use-pep517 --no-deps -r requirements.txt
	$(PIP) install --quiet --no-warn-script-location --no-deps -e .
	@touch $@

# make demo: the default run, a few minutes.  make quick: a first look.  make test: the fast tests.
# make slow: the slow tests, which run the notebooks, too.  make notebooks: write them anew.
# Each sets up .venv first.  Without make:
#   python3 -m venv .venv && .venv/bin/pip install -r requirements.txt
#   .venv/bin/python recap.py        or        .venv/bin/python -m pytest
PYTHON ?= python3

.PHONY: demo quick test slow notebooks clean

demo: .venv/installed
	.venv/bin/python recap.py

quick: .venv/installed
	.venv/bin/python recap.py --quick

test: .venv/installed
	.venv/bin/python tests/both.py

slow: .venv/notebooks
	.venv/bin/python tests/both.py -m slow --durations=15

notebooks: .venv/notebooks
	.venv/bin/python notebooks/build.py

.venv/installed: requirements.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
		{ echo "make: $(PYTHON) is not Python 3.10 or newer (make PYTHON=/path/to/python3 names another)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "make: $(PYTHON) cannot make virtual environments, install its venv package (Debian: python3-venv)" >&2; exit 1; }
	"$(PYTHON)" -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/notebooks: .venv/installed requirements-notebooks.txt requirements-lerobot.txt
	.venv/bin/python -m pip install --quiet --disable-pip-version-check \
		-r requirements-notebooks.txt -r requirements-lerobot.txt
	@touch $@

clean:
	rm -rf .venv runs .pytest_cache

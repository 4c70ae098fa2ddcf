# Everything a reader or a contributor runs. `make` lists the targets.
#
# Works with GNU make 3.81 (macOS) and a POSIX shell. Variables, e.g. `make book TORCH=cpu`:
#   PYTHON   the interpreter to build .venv from (default: the first of python3, python3.13,
#            python3.12, python3.11 that is 3.11 to 3.13)
#   TORCH    take PyTorch's wheels of this name ("cpu": no CUDA) instead of the default ones; it
#            counts when .venv is made
#   ONLY     `make notebooks`: part of a name, e.g. ONLY=02
#   WORKERS  processes for tests, notebooks and grading (2)
#   PORT     `make serve` (8000)
#   SUBMISSIONS, OUT   `make grade`: a folder of notebooks, and the table to write (grades.csv)
#   REPO, BRANCH       `make retarget`: owner/name of a fork, and its branch (main)
#   COLD     `make colab-test`: the environment that is copied for each notebook (.venv-cold)
#   CHANGED  `make colab-test`: a commit; only the notebooks that differ from it are run
#   VARIANT  `make assignments`: a whole number; another one changes the questions' numbers (0)

PYTHON =
TORCH =
ONLY =
WORKERS = 2
PORT = 8000
VARIANT = 0
SUBMISSIONS =
OUT = grades.csv
REPO =
BRANCH = main
COLD = .venv-cold
CHANGED =

VENV = .venv
OTTER = .venv-otter
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check
TORCH_INDEX = $(if $(TORCH),--extra-index-url https://download.pytorch.org/whl/$(TORCH))

# .venv is up to date when it holds the stamp of these very files at this very place.
KEY := $(shell (pwd; cat requirements/lock.txt pyproject.toml) | cksum | cut -d ' ' -f 1)
READY = $(VENV)/.ready-$(KEY)
OTTER_KEY := $(shell (pwd; cat requirements/otter.txt pyproject.toml) | cksum | cut -d ' ' -f 1)
OTTER_READY = $(OTTER)/.ready-$(OTTER_KEY)
COLD_READY = $(COLD)/.ready

# Two processes of one thread each are faster than one process of two threads.
export OMP_NUM_THREADS = 1

.PHONY: help setup book pdf test notebooks serve lab lint format linkcheck colab-test panda scale otter assignments grade retarget lock clean clean-all

help:  ## list these targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

setup: $(READY)  ## make .venv and no more

book: $(READY)  ## build the book into _build/html
	$(BIN)/jupyter-book build -W -n --keep-going .

test: $(READY)  ## run the tests, those of the built book too (in Chromium, where there is one)
	$(BIN)/python -m pytest -n $(WORKERS) -rs --ignore=tests/browser
	@$(MAKE) --no-print-directory book
	$(BIN)/python -m pytest -n $(WORKERS) -rs tests/browser

notebooks: $(READY)  ## run the notebooks of book/ again, in place (ONLY=02 for one of them)
	$(BIN)/python scripts/execute_notebooks.py --workers $(WORKERS) $(if $(ONLY),--only "$(ONLY)")

pdf: book  ## print the built book into one PDF, _build/html/skill-aware-mutual-information.pdf
	$(BIN)/python scripts/make_pdf.py
	@$(MAKE) --no-print-directory book

serve: book  ## build the book and serve it on this machine
	@echo "http://localhost:$(PORT) (Ctrl-C stops it)"
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

lab: $(READY)  ## open the notebooks in JupyterLab
	PYTHONSTARTUP="$(CURDIR)/scripts/kernel_startup.py" $(BIN)/jupyter lab book

lint: $(READY)  ## check style (notebooks too) and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## put style right where that can be done automatically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

linkcheck: $(READY)  ## follow every link of the book (needs the network)
	$(BIN)/jupyter-book build --builder linkcheck .

colab-test: $(READY) $(COLD_READY)  ## run notebooks as on Colab: Python 3.13, no clone (ONLY=02)
	$(BIN)/python scripts/cold_test.py --python $(COLD)/bin/python \
	  $(if $(ONLY),--only "$(ONLY)") $(if $(CHANGED),--changed "$(CHANGED)")

panda: $(READY)  ## add the Panda tasks' simulator to .venv
	$(PIP) install --no-deps --only-binary :all: -r requirements/panda.txt

scale: $(READY)  ## add Dask and Ray to .venv
	$(PIP) install -c requirements/lock.txt -r requirements/scale.txt

assignments: $(OTTER_READY)  ## write the student editions and the autograders
	$(OTTER)/bin/python scripts/assignments.py --variant $(VARIANT) $(if $(ONLY),--only "$(ONLY)")

grade: $(OTTER_READY)  ## grade a folder (SUBMISSIONS=dir OUT=grades.csv)
	@[ -n "$(SUBMISSIONS)" ] || { echo "name the folder: make grade SUBMISSIONS=dir" >&2; exit 1; }
	$(OTTER)/bin/python scripts/grade.py "$(SUBMISSIONS)" "$(OUT)" --workers $(WORKERS)

otter: $(OTTER_READY)  ## make .venv-otter, which grades the assignments

retarget:  ## point links and install cells at a fork (REPO=owner/name BRANCH=main)
	@[ -n "$(REPO)" ] || { echo "name the fork: make retarget REPO=owner/name" >&2; exit 1; }
	@python=$$(sh scripts/find_python.sh "$(PYTHON)") && \
	  "$$python" scripts/retarget.py "$(REPO)" "$(BRANCH)"

lock: $(READY)  ## resolve pyproject.toml into requirements/ again (maintainers)
	$(BIN)/python scripts/lock.py

clean:  ## delete what was built
	rm -rf _build build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info

clean-all: clean  ## delete what was built, .venv, .venv-otter and .venv-cold
	rm -rf $(VENV) $(OTTER) .venv-cold

# A virtual environment that is there and usable is kept and brought up to date.
$(READY):
	@sh scripts/find_python.sh $(BIN)/python >/dev/null 2>&1 || \
	  { python=$$(sh scripts/find_python.sh "$(PYTHON)") && \
	    echo "$$python -m venv $(VENV)" && "$$python" -m venv --clear $(VENV); }
	$(PIP) install --no-compile $(TORCH_INDEX) -r requirements/lock.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.ready-*
	@touch $@

# Otter-Grader brings packages that the book does not need, so it never enters .venv.
$(OTTER_READY):
	@sh scripts/find_python.sh $(OTTER)/bin/python >/dev/null 2>&1 || \
	  { python=$$(sh scripts/find_python.sh "$(PYTHON)") && \
	    echo "$$python -m venv $(OTTER)" && "$$python" -m venv --clear $(OTTER); }
	$(OTTER)/bin/python -m pip --disable-pip-version-check install $(TORCH_INDEX) \
	  -r requirements/otter.txt
	$(OTTER)/bin/python -m pip --disable-pip-version-check install --no-deps \
	  --no-build-isolation --editable .
	@rm -f $(OTTER)/.ready-*
	@touch $@

# What Colab has today, in the newest versions: never locked, and never with the book's library.
$(COLD_READY): requirements/colab.txt
	@python=$$(sh scripts/find_python.sh "$(or $(PYTHON),python3.13)") && \
	  echo "$$python -m venv $(COLD)" && "$$python" -m venv --clear $(COLD)
	$(COLD)/bin/python -m pip --disable-pip-version-check install --upgrade $(TORCH_INDEX) \
	  -r requirements/colab.txt
	@touch $@

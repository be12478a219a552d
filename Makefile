PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
CONSTRAINED := -c constraints.txt
MODEL ?= models/minilm-5mb

.PHONY: help demo demo-simcse docs page test check data-test slow-test
.DEFAULT_GOAL := help

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '%-16s %s\n' "$$name" "$$text"; done

demo: $(STAMP) ## set up; search with the shipped model, then make a smaller one: two minutes, no Hub
	$(BIN)/python training/demo.py

demo-simcse: $(STAMP) ## set up; masked-LM and SimCSE in small, no Hub (minutes)
	$(BIN)/python training/demo_simcse.py

docs: $(STAMP) ## set up; build the pages of docs/, build/site, where a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

page: $(STAMP) ## build the page of demo/ with a model beside it: make page [MODEL=FOLDER]; needs npm
	@command -v npm > /dev/null || { echo "error: npm is needed, with node 20.19 or newer" >&2; exit 2; }
	cd demo && npm ci && npm run build
	$(BIN)/python demo/put_model.py --folder "$(MODEL)"

test: check ## set up, check and run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(STAMP) ## set up, lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

data-test: $(STAMP) ## the tests on the real data sets: make data-test DISTILFACE_DATA=FOLDER
	@test -d "$(DISTILFACE_DATA)" || \
		{ echo "error: say where the data sets are: make data-test DISTILFACE_DATA=FOLDER" >&2; exit 2; }
	DISTILFACE_DATA="$(DISTILFACE_DATA)" $(BIN)/python -m pytest -m data

slow-test: $(STAMP) ## the tests that take minutes or a virtual environment of their own
	$(BIN)/python -m pytest -m slow --timeout 1800

# Made again when what is to be installed changes; distilface/__init__.py holds the version.
$(STAMP): pyproject.toml constraints.txt distilface/__init__.py
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
		"error: Python 3.11 or newer is needed and $(PYTHON) is %d.%d; try: make PYTHON=python3.11" % v[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(CONSTRAINED) torch==2.13.0
	$(BIN)/python -m pip install $(CONSTRAINED) -e '.[train,offline,dev]'
	@touch $@

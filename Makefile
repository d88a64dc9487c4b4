# Every target sets up .venv by itself; `make demo` and `make test` need nothing but Python 3.11 to 3.13.
PYTHON ?= python3
VENV := .venv
RUN := TF_CPP_MIN_LOG_LEVEL=3 $(VENV)/bin/python
CDC := $(VENV)/bin/cdc-keras

.PHONY: demo test quick lint docs bench reference long families precision augmentation disentangling tables clean

demo: $(VENV)/installed
	$(CDC) demo --out=runs/demo

test: $(VENV)/installed-dev
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

quick: $(VENV)/installed-dev
	$(RUN) -m pytest -m "not slow and not long"

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(RUN) -m pytest tests/test_imports.py
	$(VENV)/bin/codespell
	$(RUN) -m docs.plain

# The site, in build/site. Tutorials that have changed are executed first, two at a time and the longest first, so that
# neither core waits for the other.
NOTEBOOKS := $(patsubst examples/%.py,docs/tutorials/%.ipynb,$(shell grep -l "^. %% .markdown." examples/*.py))
LONGEST := $(patsubst %,docs/tutorials/%.ipynb,serve_and_explain reproduce_a_row your_photographs)
docs: $(VENV)/installed-docs
	$(MAKE) --jobs=2 --output-sync $(LONGEST) $(filter-out $(LONGEST),$(NOTEBOOKS))
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

docs/tutorials/%.ipynb: examples/%.py
	@mkdir -p $(@D)
	TF_CPP_MIN_LOG_LEVEL=3 $(VENV)/bin/jupytext --quiet --set-kernel=python3 --to=ipynb --execute --output=$@ $<

# 45 minutes on two cores that do nothing else. ROUNDS=1 is a quick look.
ROUNDS ?= 5
bench: $(VENV)/installed-torch
	$(RUN) -m benchmarks.input_path --rounds=$(ROUNDS) --out=docs/results/input_path.json
	$(RUN) -m benchmarks.photographs --rounds=$(ROUNDS)
	$(RUN) -m benchmarks.backends
	$(RUN) -m benchmarks.training_step --rounds=$(ROUNDS) --out=docs/results/training_step.json
	$(RUN) -m benchmarks.settings --rounds=$(ROUNDS) --out=docs/results/settings.json
	$(RUN) -m benchmarks.latency --rounds=$(ROUNDS) --out=docs/results/latency.json
	$(RUN) -m benchmarks.start --rounds=$(ROUNDS)
	$(RUN) -m benchmarks.growth --rounds=$(ROUNDS)
	$(RUN) -m docs.fill

reference: $(VENV)/installed-torch
	$(RUN) -m pytest tests/test_same_numbers.py tests/benchmarks/test_training_step.py

# An hour: kills runs twenty times each. Then compares several devices, and several workers, with one, trains in float16,
# audits whole data sets, gates every model of keras.applications and computes every number of the zoo again.
long: $(VENV)/installed-dev
	KILLS=20 $(RUN) -m pytest -m "" tests/runs/test_resume.py
	DATA_DIR=$(DATA_DIR) $(RUN) -m pytest -m long --ignore=tests/runs/test_resume.py

DATA_DIR ?= $(HOME)/tensorflow_datasets
families: $(VENV)/installed-dev
	$(RUN) -m benchmarks.families --data_dir=$(DATA_DIR)

augmentation: $(VENV)/installed-dev
	$(RUN) -m benchmarks.augmentation --data_dir=$(DATA_DIR)
	$(RUN) -m docs.fill

precision: $(VENV)/installed-dev
	$(RUN) -m benchmarks.precision --data_dir=$(DATA_DIR)

# Every row of all six tables on a few images, then the tables of docs/results: ten minutes, then hours, on two cores.
tables: $(VENV)/installed
	$(CDC) tables --smoke
	$(CDC) tables --table=1 --table=2 --table=3 --networks=vgg13_slim,resnet20 \
		--classifier_flags=configs/cifar100_short.flags --extractors=zoo --corrupted_images=1000 --data_dir=$(DATA_DIR) \
		--out=docs/results/cifar100_short
	$(CDC) tables --table=2 --dataset=shapes --networks=vgg13_slim --rows=plain,ours,ru,shuffled,untrained \
		--classifier_flags=configs/shapes_biased.flags --extractor_flags=configs/shapes_biased_extractor.flags \
		--corrupted_images=1000 --out=docs/results/shapes_biased
	$(RUN) -m docs.fill

disentangling: $(VENV)/installed-dev
	$(RUN) -m benchmarks.disentangling --dataset=shapes
	$(RUN) -m benchmarks.disentangling --dataset=cifar100 --data_dir=$(DATA_DIR)
	$(RUN) -m docs.fill

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else \
		"error: this needs Python 3.11 to 3.13; name one with make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python requirements.txt pyproject.toml
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(VENV)/installed-docs: $(VENV)/installed requirements-docs.txt
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	touch $@

# The peers of `make reference` and `make bench`; large, and needed for nothing else, so they are no requirement.
$(VENV)/installed-torch: $(VENV)/installed-dev
	$(VENV)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 openvino==2026.4.1
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache

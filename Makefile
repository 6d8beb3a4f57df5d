# Every routine task of the project is a target. `make` alone lists them.

PYTHON ?= python3

BIN   = .venv/bin
# In the order of tests/conftest.py, where xdist would start the files with the most tests first.
WORKERS = -n 2 --dist loadfile --no-loadscope-reorder
READY = .venv/.ready
BUILD = $(call option,--image,IMAGE) $(call option,--base,BASE) $(call option,--dirty,DIRTY) \
        $(call option,--engine,ENGINE) $(call option,--build-flags,BUILD_FLAGS)

# `python -m pipelines` finds this folder, and file names are UTF-8 whatever the locale. An older
# make does not export variables to `shell`.
export PYTHONSAFEPATH :=
export PYTHONUTF8 := 1

# The variables of the command line, and no others, are handed on as they were typed: `value` does
# not expand them, and `unexport` keeps make from expanding them for the environment of commands.
GIVEN := $(sort $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name))))
unexport $(GIVEN)
# One shell word whatever the text holds, but for a line break.
quote  = '$(subst ','\'',$(1))'
option = $(if $(filter $(2),$(GIVEN)),$(1)=$(call quote,$(value $(2))))
ALL    = $(foreach name,$(GIVEN),$(call quote,$(name)=$(value $(name))))

define LINE_BREAK


endef
$(foreach name,$(GIVEN),$(if $(findstring $(LINE_BREAK),$(value $(name))),\
  $(error $(name) has a line break: expected one line)))

# Refuses unknown variables before anything runs. pipelines/variables.py knows what a target takes.
ifneq ($(MAKECMDGOALS)$(GIVEN),)
CHECKER := $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
REFUSAL := $(shell export PYTHONSAFEPATH= PYTHONUTF8=1; $(CHECKER) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
  $(CHECKER) -B -m pipelines.variables $(foreach goal,$(MAKECMDGOALS),$(call quote,$(goal))) -- \
  $(foreach name,$(GIVEN),$(call quote,$(name))))
$(if $(REFUSAL),$(error $(REFUSAL)))
endif

.DEFAULT_GOAL := help
.PHONY: help setup sweep tune audit compile bench reproduce chaos gpu-check test test-docs test-all docs lint format lock clean distclean image image-test manifests data schedule accept report clean-runs doctor cluster-test

##@ Use

help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "sweep takes DATASET NOISE METHODS SEEDS RECIPE NETWORK FEATURES STEPS SET LABELS DATA_DIR OUT"
	@echo "MAX_HOURS DEVICES GPUS_PER_TRIAL, for example \`make sweep NOISE=0.4 METHODS=l2r\`; for clusters"
	@echo "RUNNER CLUSTER PROFILE WATCH MAX_GPU_HOURS MAX_PENDING RESUME RATES. README.md explains them."

sweep: $(READY) ## train and compare methods across noise rates, here or on a cluster
	@$(BIN)/python -m pipelines run noise_sweep $(ALL)

tune: $(READY) ## choose settings for METHODS without the test set, trying POINTS for each
	@$(BIN)/python -m pipelines tune $(ALL)

audit: $(READY) ## list image labels that look wrong: make audit DATA_DIR=photos
	@$(BIN)/ieg audit $(if $(filter DATASET,$(GIVEN)),$(call quote,$(value DATASET)) \
	  $(call option,--data-dir,DATA_DIR),$(call quote,$(value DATA_DIR))) \
	  $(call option,--out,OUT) $(call option,--labels,LABELS) $(call option,--features,FEATURES) \
	  $(call option,--decisions,DECISIONS) $(call option,--corrections,CORRECTIONS) \
	  $(call option,--write-labels,WRITE_LABELS) $(call option,--precision,PRECISION)

report: $(READY) ## rewrite the report of RUN (default: the newest), even if the run had none
	@$(BIN)/python -m pipelines report $(ALL)

bench: $(READY) ## time a training step of each method on this machine (a few minutes)
	@$(BIN)/python -m scripts.bench

reproduce: $(READY) ## rerun FIGURE of docs/RESULTS.md and compare; without FIGURE, list them
	@$(BIN)/python -m scripts.reproduce $(ALL)

chaos: $(READY) ## damage files, break services, kill processes at random; count what survives
	@$(BIN)/python -m scripts.chaos_services
	@$(BIN)/python -m scripts.chaos_structures --tries 200
	@$(BIN)/python -m scripts.chaos_fuzz
	@$(BIN)/python -m scripts.chaos_atheris --seconds 6
	@$(BIN)/python -m scripts.chaos mutations flips --tries 300
	@$(BIN)/python -m scripts.chaos_kills --tries 8
	@$(BIN)/python -m scripts.chaos_long

gpu-check: $(READY) ## check and time training steps on a GPU, in several calls of SECONDS each
	@$(BIN)/python -m scripts.gpu_check $(call option,--state,OUT) $(call option,--seconds,SECONDS) \
	  $(call option,--data-dir,DATA_DIR) $(call option,--wheels,WHEELS) \
	  $(and $(filter CPU,$(GIVEN)),$(filter 1,$(value CPU)),--cpu)

setup: $(READY) ## set up .venv; does nothing if it is up to date

##@ On a cluster

image: ## build the image with docker, podman or buildah, tagged with the git revision
	@$(PYTHON) -m scripts.image $(call option,--target,TARGET) $(BUILD)

image-test: $(READY) ## build the cpu image; run, kill and resume a trial in it like KFP (10 minutes)
	@$(BIN)/python -m scripts.image_test --target=cpu $(BUILD) $(call option,--run-flags,RUN_FLAGS)

manifests: $(READY) ## render k8s/ for the namespace and image of CLUSTER to build/k8s/, and check it
	@$(BIN)/python -m pipelines.manifests.render $(call option,--cluster,CLUSTER)

data: manifests ## fill the cluster's data volume: download CIFAR there, or copy it FROM=folder
	@$(BIN)/python -m scripts.cluster_data $(call option,--cluster,CLUSTER) $(call option,--from,FROM)

doctor: $(READY) ## check with a small run that sweeps find their image, GPU, data and results
	@$(BIN)/python -m pipelines doctor $(ALL)

cluster-test: $(READY) ## test an installation as users would (about an hour); writes cluster-test.md
	@$(BIN)/python -m scripts.cluster_test $(call option,--cluster,CLUSTER) $(call option,--profile,PROFILE)

schedule: $(READY) ## make the cluster match schedules.yaml (PLAN=1: only show what would change)
	@$(BIN)/python -m pipelines schedule $(ALL)

accept: $(READY) ## compare the next runs of SCHEDULE with its newest run, or with RUN
	@$(BIN)/python -m pipelines accept $(ALL)

clean-runs: $(READY) ## remove checkpoints and sweeps OLDER than 30d, 12h, … (PLAN=1: only list them)
	@$(BIN)/python -m pipelines clean-runs $(ALL)

##@ Develop

test: $(READY) ## run the tests, five minutes on 2 cores
	@$(BIN)/python -m pytest $(WORKERS) -m "not slow and not gpu and not cluster"

test-docs: $(READY) ## run every documented command; test the package, the site and review.html
	@$(BIN)/python -m pytest $(WORKERS) -m slow tests/docs tests/integration/test_package.py \
	  tests/integration/test_review_browser.py tests/scripts/test_docs_site.py \
	  tests/scripts/test_gpu_check.py \
	  tests/ieg_core/test_auditing.py tests/ieg_core/test_fitting.py

test-all: $(READY) ## run every test that this machine can run
	@$(BIN)/python -m pytest $(WORKERS)

docs: $(READY) ## build the documentation site, build/site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(READY) ## check format, style, types and import contracts; changes nothing
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo

format: $(READY) ## format the code and fix what can be fixed automatically
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

compile: $(READY) ## write build/noise_sweep-{local,cpu,gpu}.yaml, to upload in the KFP UI
	@$(BIN)/python -m pipelines compile $(ALL) --output=build

lock: $(READY) ## pin the dependencies of pyproject.toml (UPGRADE=1: to the newest versions)
	@$(PYTHON) scripts/set_up.py lock $(if $(value UPGRADE),--upgrade)

clean: ## remove caches and build outputs; keeps results and .venv
	@rm -rf build ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## also remove .venv
	@rm -rf .venv

$(READY): requirements.lock requirements-gpu.lock pyproject.toml scripts/set_up.py
	@$(PYTHON) scripts/set_up.py

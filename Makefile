# The front door: every habit of the project is a target. `make` alone lists them.

PYTHON ?= python3

DATASET      = digits_uniform
NOISE        =
METHODS      = supervised,mixup,probe_only,l2r,fsr,ieg
SEEDS        = 0
RECIPE       =
NETWORK      =
STEPS        =
SET          =
LABELS       =
DATA_DIR     = ./data
OUT          = runs
MAX_HOURS    = 4
DEVICES      = auto
GPUS_PER_TRIAL = 1
RUNNER       = auto
CLUSTER      =
PROFILE      = gpu
WATCH        =
MAX_GPU_HOURS =
MAX_PENDING  =
RESUME       =
RATES        =

IMAGE        = ieg-python
TARGET       = gpu
BASE         =
ENGINE       =
BUILD_FLAGS  =
RUN_FLAGS    =
DIRTY        =
FROM         =
PLAN         =
OLDER        =
SCHEDULE     =
RUN          =
DATA         =

BIN   = .venv/bin
# In the order of tests/conftest.py, where xdist would start the files with the most tests first.
WORKERS = -n 2 --dist loadfile --no-loadscope-reorder
READY = .venv/.ready
BUILD = --image=$(call quote,$(IMAGE)) --base=$(call quote,$(BASE)) --dirty=$(call quote,$(DIRTY)) \
        --engine=$(call quote,$(ENGINE)) --build-flags=$(call quote,$(BUILD_FLAGS))
# One shell word whatever the value holds.
quote = '$(subst ','\'',$(1))'

.DEFAULT_GOAL := help
.PHONY: help setup sweep compile bench test test-docs test-all docs lint format lock clean distclean image image-test manifests data schedule accept clean-runs doctor

##@ Use

help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "sweep takes DATASET NOISE METHODS SEEDS RECIPE NETWORK STEPS SET LABELS DATA_DIR OUT"
	@echo "MAX_HOURS DEVICES GPUS_PER_TRIAL, as in \`make sweep NOISE=0.4,0.8 METHODS=l2r\`; on a cluster also"
	@echo "RUNNER CLUSTER PROFILE WATCH MAX_GPU_HOURS MAX_PENDING RESUME RATES; see README.md."

sweep: $(READY) ## train and compare methods across noise ratios, here or on a cluster
	@$(BIN)/python -m pipelines run noise_sweep \
	  --dataset=$(call quote,$(DATASET)) --noise=$(call quote,$(NOISE)) \
	  --methods=$(call quote,$(METHODS)) --seeds=$(call quote,$(SEEDS)) \
	  --recipe=$(call quote,$(RECIPE)) --network=$(call quote,$(NETWORK)) \
	  --steps=$(call quote,$(STEPS)) --set=$(call quote,$(SET)) \
	  --labels=$(call quote,$(LABELS)) \
	  --data-dir=$(call quote,$(DATA_DIR)) --out=$(call quote,$(OUT)) \
	  --max-hours=$(call quote,$(MAX_HOURS)) --devices=$(call quote,$(DEVICES)) \
	  --gpus-per-trial=$(call quote,$(GPUS_PER_TRIAL)) \
	  --runner=$(call quote,$(RUNNER)) --cluster=$(call quote,$(CLUSTER)) \
	  --profile=$(call quote,$(PROFILE)) --watch=$(call quote,$(WATCH)) \
	  --max-gpu-hours=$(call quote,$(MAX_GPU_HOURS)) \
	  --max-pending=$(call quote,$(MAX_PENDING)) \
	  --resume=$(call quote,$(RESUME)) --rates=$(call quote,$(RATES))

bench: $(READY) ## time a training step of each method on this machine (a few minutes)
	@$(BIN)/python -m scripts.bench

setup: $(READY) ## set .venv up; does nothing when nothing changed

##@ On a cluster

image: ## build the image with docker, podman or buildah; the git revision is its tag
	@$(PYTHON) -m scripts.image --target=$(call quote,$(TARGET)) $(BUILD)

image-test: $(READY) ## build the cpu image, run a trial in it as KFP would, kill it, go on (10 minutes)
	@$(BIN)/python -m scripts.image_test --target=cpu $(BUILD) --run-flags=$(call quote,$(RUN_FLAGS))

manifests: $(READY) ## render k8s/ for the cluster's namespace and image to build/k8s/, and check it
	@$(BIN)/python -m pipelines.manifests.render --cluster=$(call quote,$(CLUSTER))

data: manifests ## fill the cluster's data volume: it downloads CIFAR, or copies it FROM=folder
	@$(BIN)/python -m scripts.cluster_data --cluster=$(call quote,$(CLUSTER)) \
	  --from=$(call quote,$(FROM))

doctor: $(READY) ## prove by a small run what a sweep needs: image, GPU, data, results root
	@$(BIN)/python -m pipelines doctor --cluster=$(call quote,$(CLUSTER)) \
	  --runner=$(call quote,$(RUNNER)) --profile=$(call quote,$(PROFILE)) \
	  --data=$(call quote,$(DATA)) --data-dir=$(call quote,$(DATA_DIR)) --out=$(call quote,$(OUT))

schedule: $(READY) ## make the cluster match schedules.yaml (PLAN=1: show what would change)
	@$(BIN)/python -m pipelines schedule --cluster=$(call quote,$(CLUSTER)) --plan=$(call quote,$(PLAN)) \
	  --rates=$(call quote,$(RATES))

accept: $(READY) ## hold a SCHEDULE's next runs against its newest run, or against RUN
	@$(BIN)/python -m pipelines accept --cluster=$(call quote,$(CLUSTER)) \
	  --runner=$(call quote,$(RUNNER)) --out=$(call quote,$(OUT)) \
	  --schedule=$(call quote,$(SCHEDULE)) --run=$(call quote,$(RUN))

clean-runs: $(READY) ## remove checkpoints and sweeps OLDER than 30d, 12h, … (PLAN=1: list them)
	@$(BIN)/python -m pipelines clean-runs --cluster=$(call quote,$(CLUSTER)) \
	  --runner=$(call quote,$(RUNNER)) --out=$(call quote,$(OUT)) \
	  --older=$(call quote,$(OLDER)) --plan=$(call quote,$(PLAN))

##@ Develop

test: $(READY) ## run the tests, under 10 minutes on 2 cores
	@$(BIN)/python -m pytest $(WORKERS) -m "not slow and not gpu and not cluster"

test-docs: $(READY) ## run every documented command; build, install and try the package and the site
	@$(BIN)/python -m pytest $(WORKERS) -m slow tests/docs tests/test_package.py \
	  tests/ieg_core/test_fitting.py

test-all: $(READY) ## run every test that this machine can run
	@$(BIN)/python -m pytest $(WORKERS)

docs: $(READY) ## build the documentation's site, build/site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(READY) ## check format, style, types and import contracts; changes nothing
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo

format: $(READY) ## put the code in format, mend what can be mended
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

compile: $(READY) ## write build/noise_sweep-{local,cpu,gpu}.yaml, to be uploaded in the KFP UI
	@$(BIN)/python -m pipelines compile --cluster=$(call quote,$(CLUSTER)) --output=build

lock: $(READY) ## pin the dependencies of pyproject.toml again (UPGRADE=1: the newest)
	@$(PYTHON) scripts/set_up.py lock $(if $(UPGRADE),--upgrade)

clean: ## remove caches and what was built; results and .venv stay
	@rm -rf build ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## also remove .venv
	@rm -rf .venv

$(READY): requirements.lock requirements-gpu.lock pyproject.toml scripts/set_up.py
	@$(PYTHON) scripts/set_up.py

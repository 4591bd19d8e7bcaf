# The front door: `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
# Unit and api tests wait more than they work: more processes than this machine has cores, each with servers of its own.
PROCESSES ?= $(shell expr $$(nproc) + 1)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Where it is set, each of hundreds of processes compiles what it imports.
export PYTHONDONTWRITEBYTECODE :=

include tests/cluster/cluster.mk

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

.PHONY: venv
venv: ## Install the locked dependencies into .venv
	PYTHON=$(PYTHON) tests/cluster/tools.sh venv

.PHONY: tools
tools: ## Install or build what the tests need beyond Python (Debian packages, Kubernetes, Helm, Java)
	PYTHON=$(PYTHON) tests/cluster/tools.sh

.PHONY: setup
setup: ## Both, side by side; all other targets do what they need of it
	PYTHON=$(PYTHON) tests/cluster/tools.sh venv packages kube pause sanity runc vm jdks browser

.PHONY: check
check: setup ## What each commit must pass, within minutes: lint and unit tests, but for those that take long
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target PROCESSES=$(shell expr $$(nproc) + 2) \
	  MARKS='not long' lint unit

.PHONY: test
# The e2e tests wait more than they work: the others run beside them, with what they leave of the machine.
test: setup ## Run every check and every test
	$(MAKE) --no-print-directory --jobs=2 e2e-beside others; status=$$?; cat $(BESIDE); exit $$status

BESIDE := .cluster/e2e.log
.PHONY: e2e-beside others
e2e-beside:
	@mkdir -p $(dir $(BESIDE))
	@echo 'The e2e tests write to $(BESIDE), which is shown in the end.'
	@$(MAKE) e2e >$(BESIDE) 2>&1

others:
	@nice $(MAKE) --no-print-directory lint
	@nice $(MAKE) --no-print-directory unit
	@nice $(MAKE) --no-print-directory api

.PHONY: lint
lint: venv ## ruff, mypy, import rules, generated files current
	ruff format --check operator tests image
	ruff check operator tests image
	mypy operator tests image
	lint-imports
	python -m directdownload.resources.crd crds --check
	python -m directdownload.resources.reference docs/kinds --check
	python -m directdownload.observe.metrics_reference docs/metrics.md --check
	python -m directdownload.dashboard.advice docs/reasons.md --check
	python -m tests.values_reference docs/values.md --check
	python -m tests.denied_networks charts/direct-download-operator/files/denied-networks.yaml --check
	diff -r crds charts/direct-download-operator/crds || { echo 'stale chart CRDs; run `make crds`' >&2; exit 1; }

.PHONY: unit
unit: setup ## Tests of decisions, engine and command line
	pytest tests/unit -n $(PROCESSES) --dist worksteal $(if $(MARKS),-m "$(MARKS)")

.PHONY: api
api: setup ## Tests against a real kube-apiserver
	pytest tests/api -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

.PHONY: e2e
e2e: setup ## Tests on a real three-node cluster
	pytest tests/e2e
	@# The local cluster's own tests; not where KUBECONFIG and IMAGE name another one.
	[ -n "$$KUBECONFIG" ] && [ -n "$$IMAGE" ] || pytest tests/cluster

.PHONY: coverage
coverage: setup ## Lines and branches that unit and api tests reach, by module (TESTS=tests/unit for those alone)
	rm -rf .cache/coverage
	mkdir -p .cache/coverage
	coverage run -m pytest -q $(or $(TESTS),tests/unit tests/api) -n $(PROCESSES) --dist loadfile --no-loadscope-reorder
	coverage combine -q
	coverage report

.PHONY: soak
soak: setup ## Random tests with new inputs, ROUNDS=20 times as many, also on the cluster
	DIRECTDOWNLOAD_ROUNDS=$(or $(ROUNDS),20) pytest tests/unit tests/api -m soak -n $(PROCESSES) --dist worksteal
	DIRECTDOWNLOAD_ROUNDS=$(or $(ROUNDS),20) pytest tests/e2e -m soak

.PHONY: bench
bench: setup ## Measure speed and memory (docs/performance.md)
	python -m tests.bench

.PHONY: sbom
sbom: venv $(if $(ARCHIVE),,image) ## What is in the image, as CycloneDX: dist/sbom.cdx.json (ARCHIVE=an OCI archive)
	python -m image.sbom $(or $(ARCHIVE),.cluster/images/direct-download-operator.tar) -o dist/sbom.cdx.json

.PHONY: audit
audit: venv ## Ask for known vulnerabilities in requirements.lock (needs pypi.org; OPTIONS="-s osv": osv.dev)
	python -m image.audit requirements.lock $(OPTIONS)

.PHONY: bench-scale
bench-scale: setup ## Measure the controller with 5,000 hosts and 50,000 copies (docs/performance.md)
	python -m tests.bench scale

.PHONY: demo
demo: setup ## A cluster, the operator, and one template on every host, shown live
	tests/demo/demo.sh

.PHONY: crds
crds: venv ## Regenerate crds/ and the chart's copy from the models
	python -m directdownload.resources.crd crds
	mkdir -p charts/direct-download-operator/crds
	cp crds/*.yaml charts/direct-download-operator/crds/

.PHONY: docs
docs: venv ## Regenerate the parts of docs/ and of the chart that come from the code
	python -m directdownload.resources.reference docs/kinds
	python -m directdownload.observe.metrics_reference docs/metrics.md
	python -m directdownload.dashboard.advice docs/reasons.md
	python -m tests.values_reference docs/values.md
	python -m tests.denied_networks charts/direct-download-operator/files/denied-networks.yaml

.PHONY: lock
lock: venv ## Refresh requirements.lock and requirements-dev.lock within the bounds of pyproject.toml
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --all-extras pyproject.toml -o requirements-dev.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate pyproject.toml -c requirements-dev.lock -o requirements.lock

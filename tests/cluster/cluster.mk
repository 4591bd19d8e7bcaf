# Targets for the local cluster and the product's image; tests/cluster/README.md explains them.
.PHONY: cluster-up cluster-down image

NODES ?= 3

cluster-up: ## Start a real Kubernetes on this machine (root; NODES=3); kubeconfig: .cluster/kubeconfig
	NODES=$(NODES) tests/cluster/up.sh

cluster-down: ## End it, whichever checkout started it
	tests/cluster/down.sh

image: ## Build the product's image, and import it into the nodes of the local cluster
	tests/cluster/image.sh

# SPDX-License-Identifier: Apache-2.0
"""Renders and checks the Kubernetes manifests in k8s/."""

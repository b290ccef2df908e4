"""Tests against a real Kubernetes API server, and what starts one."""

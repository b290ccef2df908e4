"""Tests against a real Kubernetes API server, and the code that starts one."""

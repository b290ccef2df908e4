"""Tests of the image without a container engine, and the replay of its Dockerfile."""

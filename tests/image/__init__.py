"""Tests of the image without a container engine, and what replays its Dockerfile."""

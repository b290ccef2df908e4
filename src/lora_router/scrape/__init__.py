"""Scrapes: reads the pods' pages periodically, and turns them into snapshots."""

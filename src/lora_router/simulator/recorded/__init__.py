"""Recorded traffic: requests of real services, read from files in the formats of their publishers.

Each format has a module. ``formats`` finds out which one a file has, and ``session_adapters`` gives
sessions their adapters, which no public recording names.
"""

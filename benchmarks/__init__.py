"""Figures, not tests: nothing here asserts a time. `make bench` runs them and prints a page."""

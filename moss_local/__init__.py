"""Embedded memory for agents."""

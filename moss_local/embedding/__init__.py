"""Texts to vectors, in the process and on this machine only."""

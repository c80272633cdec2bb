"""Posteriors to sample from; every module here offers some."""

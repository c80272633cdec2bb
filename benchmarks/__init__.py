"""Measurements of ot-lift and its peers; their results of record lie under `benchmarks/results`."""

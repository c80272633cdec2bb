"""Ways to model a density; every module here offers one or more."""

"""Data whose density is asked for; every module here is one kind of them."""

"""Generated scenes with exact masks: the data of `make demo` and of most tests."""

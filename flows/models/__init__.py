"""Published flows for vectors, as short compositions of the library's layers. `flows/__init__.py` lists them."""

"""The only place that knows QNN's native side: where runtimes are, and the worker processes that run them."""

"""The HTTP service: one Flask application, one module for each blueprint, nothing global."""

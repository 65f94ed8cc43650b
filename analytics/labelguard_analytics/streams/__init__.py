"""Detectors of change and tests on streams of values and labels, one value after the other or in batches."""

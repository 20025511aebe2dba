"""Measurement: how far generated samples are from real ones, and whether the difference can be shown at all."""

"""Simulated worlds: scenes, what happens in them, and their datasets."""

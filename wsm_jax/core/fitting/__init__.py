"""Waves from measurements: points, meshes, distances and posed depth; sets of waves, and their tracks over time."""

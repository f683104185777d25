"""The core in other forms and files: meshes, points, voxels, distances, splats, radiance; glTF, USD, PLY and MJCF."""

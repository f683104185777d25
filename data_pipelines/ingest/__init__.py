"""Real recordings to WSV datasets."""

"""Training batches from WSV datasets."""

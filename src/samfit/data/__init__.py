"""From a folder on disk to samples, arrays, prompts and batches."""

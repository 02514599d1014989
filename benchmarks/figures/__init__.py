"""Pictures of the benchmark."""

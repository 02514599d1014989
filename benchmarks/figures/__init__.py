"""Pictures of the experiments and the side studies."""

"""Studies beside the main comparison."""

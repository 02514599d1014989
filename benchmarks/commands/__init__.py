"""The commands of `python -m benchmarks`, one file a command. A command parses its options, calls, and prints."""

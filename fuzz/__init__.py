"""Coverage-guided fuzzing: `make fuzz SECONDS=60`. What each target holds to: README.md."""

"""One file of every stored format, written once and opened for ever by test_golden."""

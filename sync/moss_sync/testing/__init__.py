"""For tests of programs that synchronise: faults, virtual time, and a simulator of the protocol."""

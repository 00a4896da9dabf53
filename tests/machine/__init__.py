"""Faults of the machine: full and failing disks, and power cuts."""

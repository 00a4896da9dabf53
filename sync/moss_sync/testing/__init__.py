"""For tests of programs that synchronise: stores with faults, virtual time, and the simulator.

Public, documented in docs/testing.md:
  FaultyStore, with SeededFaults or ScriptedFaults    a blob store that fails as real ones do
  VirtualClock, VirtualLoop, run_virtual              time that passes by waiting and nothing else
  strategies                                          hypothesis: records, segments, schedules
  store_contract                                      what every blob store promises, as pytest
  simulate, schedule_of                               whole schedules of the protocol, from a seed
The last two modules need hypothesis and pytest; nothing else here does.
"""

from __future__ import annotations

from moss_sync.testing.clock import VirtualClock
from moss_sync.testing.copies import Copies, LocalCopy, Look, Row
from moss_sync.testing.faults import Fault, FaultPlan, ScriptedFaults, SeededFaults
from moss_sync.testing.loop import VirtualLoop, VirtualTime, run_virtual
from moss_sync.testing.oracle import ViolationError
from moss_sync.testing.schedule import Schedule, Step, schedule_of
from moss_sync.testing.simulator import Outcome, simulate
from moss_sync.testing.store import FaultyStore, Request

__all__ = [
    "Copies",
    "Fault",
    "FaultPlan",
    "FaultyStore",
    "LocalCopy",
    "Look",
    "Outcome",
    "Request",
    "Row",
    "Schedule",
    "ScriptedFaults",
    "SeededFaults",
    "Step",
    "ViolationError",
    "VirtualClock",
    "VirtualLoop",
    "VirtualTime",
    "run_virtual",
    "schedule_of",
    "simulate",
]

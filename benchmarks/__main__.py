"""`make bench`: the figures of the README and of docs/design, on this machine."""

from __future__ import annotations

import os
import platform

from benchmarks import bench_search, bench_session


def main() -> None:
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    bench_session.main()
    print()
    bench_search.main()


if __name__ == "__main__":
    main()

"""What is installed with this package, under which licences: python docs/dependencies.py

Fails if a package that a user gets has a licence that is not in `ALLOWED`, or none that it tells.
Reads what is installed here; asks no network. Known vulnerabilities are another question: run
pip-audit where its database can be reached.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",  # file by file; we change none of its files
    "PSF-2.0",
    "Zlib",
    "any-OSI",  # apsw: whichever of the OSI's the user likes
}

WRITTEN = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
}
"""Names that packages use for those."""


def installed(name: str = "moss-local", extras: tuple[str, ...] = ("files",)) -> list[Distribution]:
    """Return what a user of the package gets, itself left out, in order of name."""
    found: dict[str, Distribution] = {}

    def walk(name: str, extras: tuple[str, ...]) -> None:
        key = re.sub(r"[-_.]+", "-", name.lower())
        if key in found:
            return
        found[key] = each = distribution(name)
        for line in each.requires or []:
            wanted = Requirement(line)
            places = [{"extra": extra} for extra in ("", *extras)]
            if wanted.marker is None or any(map(wanted.marker.evaluate, places)):
                try:
                    walk(wanted.name, tuple(wanted.extras))
                except PackageNotFoundError:
                    raise SystemExit(f"{wanted.name}, which {name} needs, is missing") from None

    walk(name, extras)
    del found[name]
    return [found[key] for key in sorted(found)]


def licences_of(package: Distribution) -> set[str]:
    """Return a package's licences, by their SPDX names where those are known."""
    told = package.metadata
    expression = told.get("License-Expression")
    if expression:
        return set(re.findall(r"[\w.+-]+", re.sub(r"\b(AND|OR|WITH)\b", " ", expression)))
    named = [
        line.rpartition("::")[2].strip()
        for line in told.get_all("Classifier") or []
        if line.startswith("License ::")
    ]
    told_freely = re.split(r",| AND | OR ", told.get("License") or "")
    named = named or [part.strip() for part in told_freely]
    named = [name for name in named if name and not name.startswith("Version ")]
    return {WRITTEN.get(name, name) for name in named}


def main() -> None:
    refused = []
    for package in installed():
        licences = licences_of(package)
        name = package.metadata["Name"]
        print(f"{name} {package.version}: {', '.join(sorted(licences)) or 'tells no licence'}")
        if not licences or licences - ALLOWED:
            refused.append(name)
    if refused:
        sys.exit(f"not allowed: {', '.join(refused)}")


if __name__ == "__main__":
    main()

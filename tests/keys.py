"""Project keys for tests, of the form that is quick to derive from; a typed one costs 0.2 s."""

from __future__ import annotations

KEY = "unh4-hnws-ztul-5mzb-nqv3-wxsv-oopi-cipn-4z7f"
OTHER_KEY = "xibv-myu5-unsa-k2la-bzpe-wekl-tkr3-3y4g-4tn6"
NEW_KEY = "xfm2-poou-la6v-flyp-zkes-xcje-lrnr-xj7j-gfyd"

"""What holds for every test of this repository."""

from __future__ import annotations

from hypothesis import settings

# A property is about what a function returns; how long that takes on a busy machine is the benchmarks' business.
settings.register_profile("onprem-agent", deadline=None)
settings.load_profile("onprem-agent")

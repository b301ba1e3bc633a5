"""What the spool and its owner agree on: who is told what, and how long things may take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.store.row import Row
from agent.store.sqlite import SpoolTrouble


@dataclass(frozen=True, slots=True)
class Timing:
    """In seconds.

    `settle_lag_s`: how long a finished message may wait for company before its outcome is committed. `probe_every_s`:
    how often a troubled disk is asked again, and free space is looked at. `hung_after_s`: a commit that takes longer
    is trouble. `close_within_s`: what a stop gives the disk for the last commit.
    """

    settle_lag_s: float = 0.05
    probe_every_s: float = 1.0
    hung_after_s: float = 10.0
    close_within_s: float = 10.0


@dataclass(slots=True)
class SpoolEvents:
    """Who is told. Every call happens on the loop, with rows in the order in which they were put."""

    on_durable: Callable[[list[Row]], None]
    on_claimed: Callable[[list[Row]], None]
    on_refused: Callable[[list[Row], SpoolTrouble], None]
    on_unclaimed: Callable[[list[Row]], None]
    on_health: Callable[[SpoolTrouble | None], None]

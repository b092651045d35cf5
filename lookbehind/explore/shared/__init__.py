"""What several explorers and notebooks use."""

from lookbehind.explore.shared.bets import Bet, Tally
from lookbehind.explore.shared.exercises import verdict
from lookbehind.explore.shared.palette import METHOD_COLORS, ROLE_COLORS

__all__ = ["METHOD_COLORS", "ROLE_COLORS", "Bet", "Tally", "verdict"]

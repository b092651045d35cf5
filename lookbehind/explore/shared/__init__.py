"""What several explorers and notebooks use."""

from lookbehind.explore.shared.bets import Bet, Tally, verdict
from lookbehind.explore.shared.palette import METHOD_COLORS, ROLE_COLORS

__all__ = ["METHOD_COLORS", "ROLE_COLORS", "Bet", "Tally", "verdict"]

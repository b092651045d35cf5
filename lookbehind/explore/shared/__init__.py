"""What several explorers and notebooks use."""

from lookbehind.explore.shared.bets import Bet, Tally
from lookbehind.explore.shared.exercises import verdict
from lookbehind.explore.shared.palette import METHOD_COLORS, ROLE_COLORS
from lookbehind.explore.shared.studies import chosen_runs, values

__all__ = ["METHOD_COLORS", "ROLE_COLORS", "Bet", "Tally", "chosen_runs", "values", "verdict"]

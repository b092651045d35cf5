"""What a method has, as the explorers' controls ask for it."""

from lookbehind.optim import AXES


def axes_of(method: str) -> tuple[str, ...]:
    """Which of "k", "rho", "alpha" and "adaptive", which is one more value of α, a method has."""
    return AXES[method]

"""How p-values are read, and said."""

REAL = 0.05  # the p-value from which a difference is not shown to be real


def said(p_value: float) -> str:
    """Say a p-value, as in "p = 0.012" or "p < 0.001"."""
    return f"p = {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"

"""How well scores agree with people: correlations and the protocols around them."""

"""Three conditional distributions (posterior, likelihood, prior) and the networks in them."""

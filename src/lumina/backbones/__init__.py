"""Networks that map noisy tokens, a time and a condition to a velocity."""

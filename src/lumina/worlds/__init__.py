"""Generated data, and the rules that judge what a model makes of it."""

"""What a prompt goes through on its way to a backbone."""

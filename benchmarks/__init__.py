"""What the library claims, and the command that shows it."""

"""What a user would pick instead, measured by the same protocol: see README.md."""

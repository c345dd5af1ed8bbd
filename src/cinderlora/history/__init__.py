"""What can be said of a run afterwards: its losses, what has changed since, whether it can go."""

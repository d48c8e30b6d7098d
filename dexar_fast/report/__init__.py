"""Pictures and pages of an explanation. They show what is there, and compute no new numbers."""

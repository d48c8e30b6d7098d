"""Which method of explanation is better than chance on data, and by how much."""

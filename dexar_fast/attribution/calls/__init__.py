"""What one pass computes, and which keys the queries of each call of attention score."""

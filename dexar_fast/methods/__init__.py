"""Ways to explain an answer: each takes a request with its answer and gives maps. The pass itself is attribution's."""

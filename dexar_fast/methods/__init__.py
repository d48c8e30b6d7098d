"""Ways to explain an answer: each takes a request with its answer and gives maps. The pass they share is attribution's."""

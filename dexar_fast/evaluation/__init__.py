"""What measuring a map takes of a model: forwards with parts hidden, other weights, other pictures."""

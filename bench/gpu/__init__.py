"""What a GPU is asked for: the suite of benchmarks, and the plan of one visit to a machine that has one."""

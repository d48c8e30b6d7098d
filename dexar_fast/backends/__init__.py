"""Every operation of a layer under one name, and which backend takes it: reference, torch, C++, Triton, CUDA."""

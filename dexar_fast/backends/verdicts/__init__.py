"""What was found out on this machine about its kernels: which are right there, and faster."""

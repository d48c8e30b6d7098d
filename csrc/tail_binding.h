#pragma once

#include <pybind11/pybind11.h>

/// Adds norm_vjp and gated_vjp to the module.
void bind_tail(pybind11::module_& m);

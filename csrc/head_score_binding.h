#pragma once

#include <pybind11/pybind11.h>

/// Adds head_score to the module.
void bind_head_score(pybind11::module_& m);

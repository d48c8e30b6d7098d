#pragma once

#include <stdexcept>
#include <string>

#include "cpu/head_score.h"

/// The value of a name given in Python, from a table of names and values. Throws std::invalid_argument for others.
template <class Names>
auto named(const Names& names, const std::string& name) {
  for (const auto& [known, value] : names)
    if (name == known) return value;
  throw std::invalid_argument("the extension knows no " + name);
}

/// The same for an element type, and for an instruction set that this CPU has.
dexar::Type type_named(const std::string& name);
dexar::InstructionSet usable(const std::string& name);

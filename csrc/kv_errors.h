#pragma once

#include <stdexcept>

namespace dexar {

/// Every misuse and every refusal. The cache is as it was before the call that threw.
struct CacheError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A sequence that was never opened.
struct UnknownSequence : CacheError {
  using CacheError::CacheError;
};

/// A sequence used, or closed again, after it was closed.
struct ClosedSequence : CacheError {
  using CacheError::CacheError;
};

/// No run of blocks that long is free or evictable.
struct BudgetExhausted : CacheError {
  using CacheError::CacheError;
};

/// A negative count, or a length past the end.
struct InvalidRange : CacheError {
  using CacheError::CacheError;
};

/// Other keys for slots whose keys are known.
struct KeyMismatch : CacheError {
  using CacheError::CacheError;
};

}  // namespace dexar

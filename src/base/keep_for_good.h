// Memory that somebody else may still write to at any time, such as MPI after the loss of a peer,
// is not given back before the process ends.
#pragma once

#include <new>
#include <type_traits>
#include <utility>

namespace wideload {

// Moves `value` to where it stays until the process ends.
template <class T>
void KeepForGood(T&& value) noexcept {
  static_assert(!std::is_lvalue_reference_v<T>, "moves from its argument");
  [[maybe_unused]] const auto* kept = new (std::nothrow) T(std::forward<T>(value));
}

}  // namespace wideload

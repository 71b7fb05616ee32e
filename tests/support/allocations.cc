#include "support/allocations.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

std::atomic<int64_t> g_allocations{0};

void* CountedOrNull(std::size_t size) noexcept {
  g_allocations.fetch_add(1, std::memory_order_relaxed);
  return std::malloc(size == 0 ? 1 : size);
}

void* CountedAllocation(std::size_t size) {
  void* memory = CountedOrNull(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t size) { return CountedAllocation(size); }
void* operator new[](std::size_t size) { return CountedAllocation(size); }
// AddressSanitizer's own would not go with these deletes.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return CountedOrNull(size); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return CountedOrNull(size);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace wideload::testing_support {

int64_t NumAllocations() { return g_allocations.load(std::memory_order_relaxed); }

}  // namespace wideload::testing_support

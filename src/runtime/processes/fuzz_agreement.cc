// What ranks tell each other while they start: facts, how a step ended, kernel sets, from arbitrary
// bytes. What is read is written and read back alike.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "runtime/processes/agreement.h"

namespace {

using namespace wideload;           // NOLINT(google-build-using-namespace): a program of one file
using namespace wideload::runtime;  // NOLINT(google-build-using-namespace)

template <class Use>
void IgnoreRefusal(Use use) {
  try {
    use();
  } catch (const Error&) {
    // a refusal is an answer
  }
}

void UseFacts(std::span<const std::byte> bytes) {
  const std::vector<Fact> facts = UnpackFacts(bytes);
  const std::vector<Fact> again = UnpackFacts(PackFacts(facts));
  const std::vector<Fact> ranks[] = {facts, again};
  WIDELOAD_CHECK(FirstDifference(ranks).empty(), "{}", FirstDifference(ranks));
  const std::vector<Fact> others[] = {{{"--split", "first"}}, facts};
  FirstDifference(others);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<std::byte> bytes(size);  // aligned
  if (size > 0) std::memcpy(bytes.data(), data, size);
  IgnoreRefusal([&] { UseFacts(bytes); });
  IgnoreRefusal([&] {
    const Outcome outcome = UnpackOutcome(bytes);
    ExitCode(outcome.kind);
    WIDELOAD_CHECK(UnpackOutcome(PackOutcome(outcome)) == outcome, "{}", outcome.text);
  });
  std::vector<compute::KernelSet> sets(size / sizeof(compute::KernelSet));
  if (sets.empty()) return 0;
  std::memcpy(sets.data(), data, sets.size() * sizeof(sets[0]));
  IgnoreRefusal([&] { compute::KernelSetName(CommonKernelSet(sets)); });
  return 0;
}

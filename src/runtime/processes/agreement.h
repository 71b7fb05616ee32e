// What the processes of a run must have in common before they start, and how they say so when they
// have not. Pure.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "compute/exec.h"

namespace wideload::runtime {

// One thing that all ranks must have alike: "--kernels" and "avx512".
struct Fact {
  std::string name;
  std::string value;
};

// "" when all ranks have the facts of rank 0; else which rank differs in which fact, what it has
// and what rank 0 has. facts [ranks], those of a rank in the same order on each.
std::string FirstDifference(std::span<const std::vector<Fact>> facts);

// The set that all of them can run: kernel sets are ordered, each machine runs those below its
// best. best [ranks], not empty. Errors: kCorrupt for one that is none.
compute::KernelSet CommonKernelSet(std::span<const compute::KernelSet> best);

// A short fingerprint of a text: FNV-1a, 64 bits, as 16 hexadecimal digits.
std::string Fingerprint(std::string_view text);

// Facts as bytes and back, to send. Errors: kCorrupt.
std::vector<std::byte> PackFacts(std::span<const Fact> facts);
// What PackFacts packed. Errors: kCorrupt.
std::vector<Fact> UnpackFacts(std::span<const std::byte> bytes);

// How a step that ranks do together ended on one of them.
struct Outcome {
  bool has_failed = false;
  bool is_told = false;  // of another rank's failure
  ErrorKind kind = ErrorKind::kRunFailed;
  std::string text;
  bool operator==(const Outcome&) const = default;
};

// The same of outcomes.
std::vector<std::byte> PackOutcome(const Outcome& outcome);
Outcome UnpackOutcome(std::span<const std::byte> bytes);

}  // namespace wideload::runtime

// What the processes of a run must have in common before they start, and how they say so when they
// have not. Pure.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

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
// best. best [ranks], not empty.
compute::KernelSet CommonKernelSet(std::span<const compute::KernelSet> best);

// A short fingerprint of a text: FNV-1a, 64 bits, as 16 hexadecimal digits.
std::string Fingerprint(std::string_view text);

// Facts as bytes and back, to send. Errors: kCorrupt.
std::vector<std::byte> PackFacts(std::span<const Fact> facts);
// What PackFacts packed. Errors: kCorrupt.
std::vector<Fact> UnpackFacts(std::span<const std::byte> bytes);

}  // namespace wideload::runtime

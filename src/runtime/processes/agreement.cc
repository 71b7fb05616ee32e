#include "runtime/processes/agreement.h"

#include <algorithm>

#include "base/error.h"
#include "runtime/processes/wire.h"

namespace wideload::runtime {

std::string FirstDifference(std::span<const std::vector<Fact>> facts) {
  const std::vector<Fact>& expected = facts[0];
  for (size_t r = 1; r < facts.size(); ++r) {
    const size_t common = std::min(facts[r].size(), expected.size());
    for (size_t i = 0; i < common; ++i) {
      const Fact& found = facts[r][i];
      if (found.name == expected[i].name && found.value == expected[i].value) continue;
      if (found.name != expected[i].name)
        return fmt::format("rank {} compares {} where rank 0 compares {}: another version", r,
                           found.name, expected[i].name);
      return fmt::format("rank {}: {} is {}; rank 0 has {}, and all ranks must have the same", r,
                         found.name, found.value, expected[i].value);
    }
    if (facts[r].size() != expected.size())
      return fmt::format("rank {} compares {} facts, rank 0 {}: another version", r,
                         facts[r].size(), expected.size());
  }
  return "";
}

compute::KernelSet CommonKernelSet(std::span<const compute::KernelSet> best) {
  for (size_t r = 0; r < best.size(); ++r)
    if (best[r] < compute::KernelSet::kReference || best[r] > compute::KernelSet::kAmx)
      Throw(ErrorKind::kCorrupt, "rank {} can run kernel set {}, which is none", r,
            static_cast<int>(best[r]));
  return *std::min_element(best.begin(), best.end());
}

std::string Fingerprint(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return fmt::format("{:016x}", hash);
}

std::vector<std::byte> PackFacts(std::span<const Fact> facts) {
  std::vector<std::byte> bytes;
  ByteWriter writer(bytes);
  for (const Fact& fact : facts) {
    writer.PutText(fact.name);
    writer.PutText(fact.value);
  }
  return bytes;
}

std::vector<Fact> UnpackFacts(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  std::vector<Fact> facts;
  while (!reader.is_at_end()) {
    std::string name = reader.TakeText();
    facts.push_back({.name = std::move(name), .value = reader.TakeText()});
  }
  return facts;
}

std::vector<std::byte> PackOutcome(const Outcome& outcome) {
  std::vector<std::byte> bytes;
  ByteWriter writer(bytes);
  writer.Put(static_cast<uint32_t>(outcome.has_failed));
  writer.Put(static_cast<uint32_t>(outcome.is_told));
  writer.Put(static_cast<int32_t>(outcome.kind));
  writer.PutText(outcome.text);
  return bytes;
}

Outcome UnpackOutcome(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  Outcome outcome;
  outcome.has_failed = reader.Take<uint32_t>() != 0;
  outcome.is_told = reader.Take<uint32_t>() != 0;
  const auto kind = reader.Take<int32_t>();
  if (kind < 0 || kind > static_cast<int32_t>(ErrorKind::kRunFailed))
    Throw(ErrorKind::kCorrupt, "a rank tells of an error of kind {}, which is none", kind);
  outcome.kind = static_cast<ErrorKind>(kind);
  outcome.text = reader.TakeText();
  if (!reader.is_at_end())
    Throw(ErrorKind::kCorrupt, "an outcome of {} bytes is too long", bytes.size());
  return outcome;
}

}  // namespace wideload::runtime

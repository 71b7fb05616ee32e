// Where a text stands in a grammar, as a state of an automaton that is made as it is needed. Not
// thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "grammar/grammar.h"

namespace wideload::grammar {

// Readings of texts in one grammar. A reading is all ways in which the bytes so far can be the
// begin of a text: for each the state it is in and the states to return to. Equal ones have one
// number, and what a byte leads to is found once.
class Readings {
 public:
  // `grammar` must outlive it.
  explicit Readings(const Grammar& grammar) : grammar_(grammar) {}

  static constexpr int32_t kDead = -1;  // no text begins so
  // Of more ways to read the same bytes the first stay. A text is then accepted still only if it is
  // of the grammar, but not every such text is.
  static constexpr size_t kMaxWays = 64;

  // Before the first byte.
  int32_t Begin() { return BeginIn(grammar_.entry); }
  // Inside a rule's automaton whose surroundings are not known: bytes of this state alone, not of
  // what it calls; texts end where the rule's do.
  int32_t BeginInside(int32_t state);

  // After one more byte.
  int32_t Next(int32_t reading, uint8_t byte) {
    if (reading == kDead) return kDead;
    const Reading& r = readings_[static_cast<size_t>(reading)];
    const int32_t known = r.row != nullptr ? r.row[byte] : kUnknown;
    return known != kUnknown ? known : FindNext(reading, byte);
  }
  // The text may end here.
  bool IsEnd(int32_t reading) const {
    return reading != kDead && readings_[static_cast<size_t>(reading)].is_end;
  }
  // A byte may follow.
  bool GoesOn(int32_t reading) const {
    return reading != kDead && !readings_[static_cast<size_t>(reading)].ways.empty();
  }
  // The states that its ways are in, each once.
  std::vector<int32_t> StatesOf(int32_t reading) const;

  // The same reading of the same grammar, in this object.
  int32_t Take(const Readings& other, int32_t reading);

  // Bytes of memory.
  int64_t size_bytes() const { return size_bytes_; }

 private:
  static constexpr int32_t kUnknown = -2;
  // A state, and the way in which what called its rule goes on; -1: nothing did.
  struct Way {
    int32_t state = 0;
    int32_t caller = -1;
  };
  struct Reading {
    std::vector<int32_t> ways;  // with bytes that lead on; ascending
    bool is_end = false;
    uint16_t num_asked = 0;
    std::unique_ptr<int32_t[]> row;  // [256], once it has been asked often
  };
  struct HashSet {
    size_t operator()(const std::vector<int32_t>& values) const;
  };

  int32_t BeginIn(int32_t state);
  int32_t FindNext(int32_t reading, uint8_t byte);
  int32_t WayOf(int32_t state, int32_t caller);
  void Reach(int32_t way, std::vector<int32_t>& open);
  int32_t ReadingOf(std::vector<int32_t> reached);
  int32_t TakeWay(const Readings& other, int32_t way);

  const Grammar& grammar_;
  std::vector<Way> ways_;
  std::unordered_map<uint64_t, int32_t> way_of_;  // state and caller
  std::vector<Reading> readings_;
  std::unordered_map<std::vector<int32_t>, int32_t, HashSet> reading_of_;  // ways and is_end
  std::vector<int32_t> scratch_;
  std::vector<uint32_t> seen_;  // of ways: the closure in which it was reached last
  uint32_t closure_ = 0;
  int64_t size_bytes_ = 0;
};

}  // namespace wideload::grammar

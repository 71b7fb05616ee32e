#include "tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "base/error.h"

namespace wideload::tokenizer {
namespace {

constexpr uint64_t kEmptyKey = std::numeric_limits<uint64_t>::max();  // ids are not negative

uint64_t KeyOf(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

// Heap order: the top is the merge of lowest rank, leftmost among equals.
bool IsWorse(const BpeScratch::Candidate& a, const BpeScratch::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
}

}  // namespace

Bpe::MergeTable::MergeTable(const std::vector<Merge>& merges) {
  const size_t num_slots = std::bit_ceil(merges.size() * 2 + 2);
  shift_ = 64 - std::countr_zero(num_slots);
  slots_.assign(num_slots, {kEmptyKey, {0, 0}});
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const uint64_t key = KeyOf(merges[rank].left, merges[rank].right);
    size_t i = Home(key);
    while (slots_[i].key != kEmptyKey && slots_[i].key != key) i = (i + 1) & (num_slots - 1);
    slots_[i] = {key, {static_cast<int32_t>(rank), merges[rank].merged}};
  }
}

const Bpe::RankedMerge* Bpe::MergeTable::Find(int32_t left, int32_t right) const {
  const uint64_t key = KeyOf(left, right);
  for (size_t i = Home(key); slots_[i].key != kEmptyKey; i = (i + 1) & (slots_.size() - 1))
    if (slots_[i].key == key) return &slots_[i].value;
  return nullptr;
}

Bpe::Bpe(BpeSpec spec) : merges_(spec.merges) {
  id_of_byte_.fill(-1);
  for (const ByteToken& token : spec.tokens)
    if (token.bytes.size() == 1) id_of_byte_[static_cast<uint8_t>(token.bytes[0])] = token.id;
  BpeScratch scratch;
  for (ByteToken& token : spec.tokens) {
    if (token.bytes.empty()) continue;
    bool is_whole = spec.ignore_merges;
    if (!is_whole) {
      MergePiece(token.bytes, scratch);
      is_whole = scratch.symbols[0].next < 0 && scratch.symbols[0].id == token.id;
    }
    if (is_whole) whole_pieces_.emplace(std::move(token.bytes), token.id);
  }
}

void Bpe::Encode(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& ids) const {
  if (piece.empty()) return;
  if (const auto whole = whole_pieces_.find(piece); whole != whole_pieces_.end()) {
    ids.push_back(whole->second);
    return;
  }
  MergePiece(piece, scratch);
  for (int32_t i = 0; i >= 0; i = scratch.symbols[static_cast<size_t>(i)].next)
    ids.push_back(scratch.symbols[static_cast<size_t>(i)].id);
}

// Leaves the tokens of `piece`, not empty, as a list in scratch.symbols that starts at index 0.
void Bpe::MergePiece(std::string_view piece, BpeScratch& scratch) const {
  WIDELOAD_CHECK(piece.size() < std::numeric_limits<int32_t>::max(), "a piece of {} bytes",
                 piece.size());
  std::vector<BpeScratch::Symbol>& symbols = scratch.symbols;
  const int32_t count = static_cast<int32_t>(piece.size());
  symbols.clear();
  scratch.heap.clear();
  for (int32_t i = 0; i < count; ++i) {
    const uint8_t byte = static_cast<uint8_t>(piece[static_cast<size_t>(i)]);
    symbols.push_back({.id = id_of_byte_[byte],
                       .previous = i - 1,
                       .next = i + 1 < count ? i + 1 : -1,
                       .is_alive = true});
  }
  for (int32_t i = 0; i + 1 < count; ++i) AddCandidate(i, scratch);

  while (!scratch.heap.empty()) {
    std::pop_heap(scratch.heap.begin(), scratch.heap.end(), IsWorse);
    const BpeScratch::Candidate best = scratch.heap.back();
    scratch.heap.pop_back();
    BpeScratch::Symbol& left = symbols[static_cast<size_t>(best.position)];
    if (!left.is_alive || left.id != best.left || left.next < 0) continue;
    BpeScratch::Symbol& right = symbols[static_cast<size_t>(left.next)];
    if (right.id != best.right) continue;
    left.id = best.merged;
    left.next = right.next;
    right.is_alive = false;
    if (left.next >= 0) {
      symbols[static_cast<size_t>(left.next)].previous = best.position;
      AddCandidate(best.position, scratch);
    }
    if (left.previous >= 0) AddCandidate(left.previous, scratch);
  }
}

void Bpe::AddCandidate(int32_t position, BpeScratch& scratch) const {
  const BpeScratch::Symbol& left = scratch.symbols[static_cast<size_t>(position)];
  const int32_t right_id = scratch.symbols[static_cast<size_t>(left.next)].id;
  const RankedMerge* merge = merges_.Find(left.id, right_id);
  if (merge == nullptr) return;
  scratch.heap.push_back({.rank = merge->rank,
                          .position = position,
                          .left = left.id,
                          .right = right_id,
                          .merged = merge->merged});
  std::push_heap(scratch.heap.begin(), scratch.heap.end(), IsWorse);
}

}  // namespace wideload::tokenizer

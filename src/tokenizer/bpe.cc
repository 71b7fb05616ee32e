#include "tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "base/error.h"
#include "tokenizer/unicode.h"

namespace wideload::tokenizer {
namespace {

constexpr uint64_t kEmptyKey = std::numeric_limits<uint64_t>::max();  // ids are not negative

// Up to this many symbols a search of the whole piece for its best merge is faster than a heap.
constexpr size_t kShortPiece = 32;

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
  for (const Merge& merge : merges) {
    const uint64_t key = KeyOf(merge.left, merge.right);
    size_t i = Home(key);
    while (slots_[i].key != kEmptyKey && slots_[i].key != key) i = (i + 1) & (num_slots - 1);
    slots_[i] = {key, {merge.rank, merge.merged}};
  }
}

const Bpe::RankedMerge* Bpe::MergeTable::Find(int32_t left, int32_t right) const {
  const uint64_t key = KeyOf(left, right);
  for (size_t i = Home(key); slots_[i].key != kEmptyKey; i = (i + 1) & (slots_.size() - 1))
    if (slots_[i].key == key) return &slots_[i].value;
  return nullptr;
}

Bpe::Bpe(BpeSpec spec)
    : symbols_(spec.symbols),
      merges_(spec.merges),
      fallback_of_byte_(spec.fallback_of_byte),
      unknown_(spec.unknown),
      fuse_unknown_(spec.fuse_unknown) {
  id_of_byte_.fill(-1);
  for (const ByteToken& token : spec.tokens) {
    if (token.bytes.empty()) continue;
    if (token.bytes.size() == 1) {
      id_of_byte_[static_cast<uint8_t>(token.bytes[0])] = token.id;
    } else if (symbols_ == BpeSymbols::kCharacters) {
      const Utf8Unit first = Utf8At(token.bytes, 0);
      if (first.is_valid && first.length == token.bytes.size())
        id_of_character_[first.code_point] = token.id;
    }
  }
  BpeScratch scratch;
  for (ByteToken& token : spec.tokens) {
    if (token.bytes.empty()) continue;
    bool is_whole = spec.ignore_merges;
    if (!is_whole) {
      MergePiece(token.bytes, scratch);
      is_whole = scratch.ids.size() == 1 && scratch.ids[0] == token.id;
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
  ids.insert(ids.end(), scratch.ids.begin(), scratch.ids.end());
}

// Leaves the tokens of `piece` in scratch.ids.
void Bpe::MergePiece(std::string_view piece, BpeScratch& scratch) const {
  WIDELOAD_CHECK(piece.size() < std::numeric_limits<int32_t>::max(), "a piece of {} bytes",
                 piece.size());
  std::vector<int32_t>& ids = scratch.ids;
  ids.clear();
  if (symbols_ == BpeSymbols::kBytes) {
    for (const char c : piece) ids.push_back(id_of_byte_[static_cast<uint8_t>(c)]);
  } else {
    CutIntoCharacters(piece, ids);
  }
  if (ids.size() <= kShortPiece)
    MergeShort(ids);
  else
    MergeLong(scratch);
}

// Source: huggingface/tokenizers, models/bpe/model.rs, BPE::merge_word (a pending unknown token is
// written when a known character comes, not when bytes come).
void Bpe::CutIntoCharacters(std::string_view piece, std::vector<int32_t>& ids) const {
  size_t num_unknown = 0;  // tokens not yet written
  for (size_t i = 0; i < piece.size();) {
    const Utf8Unit unit = Utf8At(piece, i);
    const std::string_view character = piece.substr(i, unit.length);
    i += unit.length;
    int32_t id = -1;
    if (character.size() == 1) {
      id = id_of_byte_[static_cast<uint8_t>(character[0])];
    } else if (const auto known = id_of_character_.find(unit.code_point);
               known != id_of_character_.end()) {
      id = known->second;
    }
    if (id >= 0) {
      ids.insert(ids.end(), num_unknown, unknown_);
      num_unknown = 0;
      ids.push_back(id);
    } else if (!FallBackToBytes(character, ids) && unknown_ >= 0) {
      num_unknown = fuse_unknown_ ? 1 : num_unknown + 1;
    }
  }
  ids.insert(ids.end(), num_unknown, unknown_);
}

bool Bpe::FallBackToBytes(std::string_view character, std::vector<int32_t>& ids) const {
  for (const char c : character)
    if (fallback_of_byte_[static_cast<uint8_t>(c)] < 0) return false;
  for (const char c : character) ids.push_back(fallback_of_byte_[static_cast<uint8_t>(c)]);
  return true;
}

void Bpe::MergeShort(std::vector<int32_t>& ids) const {
  constexpr RankedMerge kNone{std::numeric_limits<int32_t>::max(), -1};
  std::array<RankedMerge, kShortPiece> merge_at;  // of the symbols i and i + 1
  const auto look_up = [&](size_t i) {
    const RankedMerge* merge = merges_.Find(ids[i], ids[i + 1]);
    merge_at[i] = merge == nullptr ? kNone : *merge;
  };
  for (size_t i = 0; i + 1 < ids.size(); ++i) look_up(i);
  while (ids.size() > 1) {
    const auto end = merge_at.begin() + static_cast<ptrdiff_t>(ids.size()) - 1;
    const auto best =
        std::min_element(merge_at.begin(), end, [](const RankedMerge& a, const RankedMerge& b) {
          return a.rank < b.rank;  // the first of equals
        });
    if (best->merged < 0) return;
    const auto at = static_cast<size_t>(best - merge_at.begin());
    ids[at] = best->merged;
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(at) + 1);
    std::copy(best + 1, end, best);
    if (at + 1 < ids.size()) look_up(at);
    if (at > 0) look_up(at - 1);
  }
}

void Bpe::MergeLong(BpeScratch& scratch) const {
  std::vector<BpeScratch::Symbol>& symbols = scratch.symbols;
  const auto count = static_cast<int32_t>(scratch.ids.size());
  symbols.clear();
  scratch.heap.clear();
  for (int32_t i = 0; i < count; ++i)
    symbols.push_back({.id = scratch.ids[static_cast<size_t>(i)],
                       .previous = i - 1,
                       .next = i + 1 < count ? i + 1 : -1,
                       .is_alive = true});
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
  scratch.ids.clear();
  for (int32_t i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next)
    scratch.ids.push_back(symbols[static_cast<size_t>(i)].id);
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

// Byte-pair encoding of one piece of text over a vocabulary of strings. Immutable after
// construction; Encode may be called by many threads, each with its own BpeScratch.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace wideload::tokenizer {

// A merge joins the tokens `left` and `right` into the token `merged`.
struct Merge {
  int32_t left = 0;
  int32_t right = 0;
  int32_t merged = 0;
  int32_t rank = 0;  // the merge of lowest rank goes first
};

// A token as the bytes that it stands for.
struct ByteToken {
  std::string bytes;
  int32_t id = 0;
};

// What a text is cut into before merging.
enum class BpeSymbols {
  kBytes,       // each byte is a token
  kCharacters,  // UTF-8; a character that is no token falls back as BpeSpec says
};

// What an encoder is made from.
struct BpeSpec {
  std::vector<ByteToken> tokens;
  std::vector<Merge> merges;   // of equal pairs the last counts
  bool ignore_merges = false;  // a piece that is a token is that token, reachable by merges or not
  BpeSymbols symbols = BpeSymbols::kBytes;

  // Of kCharacters only: the tokens of the bytes ("<0x0A>"), used for a character all of whose
  // bytes have one; -1 for none.
  std::array<int32_t, 256> fallback_of_byte = [] {
    std::array<int32_t, 256> none{};
    none.fill(-1);
    return none;
  }();
  // For a character without those; -1: it is left out.
  int32_t unknown = -1;
  bool fuse_unknown = false;  // neighbouring unknown characters are one token
};

// Working memory of Encode, kept between calls so that they need not allocate.
struct BpeScratch {
  // A piece that is not merged yet, linked to its neighbours.
  struct Symbol {
    int32_t id;
    int32_t previous;  // index, -1 at the ends
    int32_t next;
    bool is_alive;
  };
  // A pair that may be merged.
  struct Candidate {
    int32_t rank;
    int32_t position;  // index of the left symbol
    int32_t left;      // ids at the time it was found
    int32_t right;
    int32_t merged;
  };
  std::vector<int32_t> ids;  // of the piece: before merging, then after
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

class Bpe {
 public:
  // kBytes: every byte that occurs in well-formed UTF-8 must be a token (the readers of the files
  // check it).
  explicit Bpe(BpeSpec spec);

  // Appends the ids of `piece`, well-formed UTF-8 shorter than 2^31 bytes. The merge of lowest rank
  // goes first, the leftmost of equals. A piece which is a token that its own merges lead to is
  // looked up at once. Time O(n log n) in the length of the piece.
  void Encode(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& ids) const;

 private:
  struct RankedMerge {
    int32_t rank;
    int32_t merged;
  };
  // Open addressing: merges are looked up several times per byte.
  class MergeTable {
   public:
    explicit MergeTable(const std::vector<Merge>& merges);
    const RankedMerge* Find(int32_t left, int32_t right) const;

   private:
    struct Slot {
      uint64_t key;
      RankedMerge value;
    };
    size_t Home(uint64_t key) const { return (key * 0x9E3779B97F4A7C15u) >> shift_; }

    int shift_;  // 64 - log2 of the number of slots
    std::vector<Slot> slots_;
  };
  struct HashBytes {
    using is_transparent = void;  // NOLINT(readability-identifier-naming): the standard's name
    size_t operator()(std::string_view bytes) const { return std::hash<std::string_view>()(bytes); }
  };

  void CutIntoCharacters(std::string_view piece, std::vector<int32_t>& ids) const;
  bool FallBackToBytes(std::string_view character, std::vector<int32_t>& ids) const;
  void MergePiece(std::string_view piece, BpeScratch& scratch) const;
  void MergeShort(std::vector<int32_t>& ids) const;
  void MergeLong(BpeScratch& scratch) const;
  void AddCandidate(int32_t position, BpeScratch& scratch) const;

  BpeSymbols symbols_;
  MergeTable merges_;
  std::array<int32_t, 256> id_of_byte_;  // kBytes: of each byte; kCharacters: of each ASCII one
  std::unordered_map<uint32_t, int32_t> id_of_character_;  // kCharacters, above ASCII
  std::array<int32_t, 256> fallback_of_byte_;
  int32_t unknown_;
  bool fuse_unknown_;
  // Tokens that a piece of the same bytes encodes to.
  std::unordered_map<std::string, int32_t, HashBytes, std::equal_to<>> whole_pieces_;
};

}  // namespace wideload::tokenizer

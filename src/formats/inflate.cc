#include "formats/inflate.h"

#include <array>
#include <cstdint>
#include <vector>

#include "base/error.h"

namespace wideload::formats {
namespace {

constexpr int kMaxBits = 15;
constexpr int kEndOfBlock = 256;
constexpr int kMaxSymbols = 288;

// A canonical Huffman code: how many codes have each length, and the symbols in order of codes.
class Code {
 public:
  Code(std::span<const uint8_t> lengths, const std::string& where) {
    for (const uint8_t length : lengths) ++counts_[length];
    counts_[0] = 0;
    int left = 1;
    std::array<int, kMaxBits + 2> next{};
    for (size_t bits = 1; bits <= kMaxBits; ++bits) {
      left = 2 * left - counts_[bits];
      if (left < 0) Throw(ErrorKind::kCorrupt, "{}: too many codes of one length", where);
      next[bits + 1] = next[bits] + counts_[bits];
    }
    symbols_.resize(lengths.size());
    for (size_t symbol = 0; symbol < lengths.size(); ++symbol)
      if (lengths[symbol] != 0)
        symbols_[static_cast<size_t>(next[lengths[symbol]]++)] = static_cast<int>(symbol);
  }

  // next_bit() gives 0 or 1. Errors: kCorrupt for bits that are no code.
  template <class NextBit>
  int Decode(const NextBit& next_bit, const std::string& where) const {
    int code = 0;
    int first = 0;
    int index = 0;
    for (size_t bits = 1; bits <= kMaxBits; ++bits) {
      code |= next_bit();
      const int count = counts_[bits];
      if (code - count < first) return symbols_[static_cast<size_t>(index + code - first)];
      index += count;
      first = 2 * (first + count);
      code *= 2;
    }
    Throw(ErrorKind::kCorrupt, "{}: bits that are no code", where);
  }

 private:
  std::array<int, kMaxBits + 1> counts_{};
  std::vector<int> symbols_;
};

struct Codes {
  Code literals;
  Code distances;
};

class Inflater {
 public:
  Inflater(std::span<const std::byte> data, size_t size, const std::string& where)
      : data_(data), size_(size), where_(where) {}

  std::string Run() {
    bool is_last = false;
    while (!is_last) {
      is_last = Bits(1) == 1;
      switch (Bits(2)) {
        case 0:
          Stored();
          break;
        case 1:
          Block(FixedCodes());
          break;
        case 2:
          Block(ReadCodes());
          break;
        default:
          Throw(ErrorKind::kCorrupt, "{}: a block of no known kind", where_);
      }
    }
    if (out_.size() != size_)
      Throw(ErrorKind::kCorrupt, "{}: holds {} bytes; {} were announced", where_, out_.size(),
            size_);
    return std::move(out_);
  }

 private:
  int Bits(int count) {
    uint32_t value = 0;
    for (int i = 0; i < count; ++i, ++bit_) {
      if (bit_ / 8 >= data_.size()) Throw(ErrorKind::kCorrupt, "{}: ends too early", where_);
      const auto byte = static_cast<uint32_t>(data_[bit_ / 8]);
      value |= ((byte >> (bit_ % 8)) & 1U) << i;
    }
    return static_cast<int>(value);
  }

  void Put(char byte) {
    if (out_.size() == size_)
      Throw(ErrorKind::kCorrupt, "{}: holds more than the {} bytes announced", where_, size_);
    out_.push_back(byte);
  }

  void Stored() {
    bit_ = (bit_ + 7) / 8 * 8;
    const int length = Bits(16);
    if ((Bits(16) ^ 0xffff) != length)
      Throw(ErrorKind::kCorrupt, "{}: a stored block whose lengths differ", where_);
    for (int i = 0; i < length; ++i) Put(static_cast<char>(Bits(8)));
  }

  Codes FixedCodes() const {
    std::array<uint8_t, kMaxSymbols> lengths{};
    for (size_t i = 0; i < lengths.size(); ++i)
      lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    std::array<uint8_t, 30> distances{};
    distances.fill(5);
    return {Code(lengths, where_), Code(distances, where_)};
  }

  Codes ReadCodes() {
    static constexpr std::array<size_t, 19> kOrder = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                      11, 4,  12, 3, 13, 2, 14, 1, 15};
    const auto num_literals = static_cast<size_t>(Bits(5) + 257);
    const auto num_distances = static_cast<size_t>(Bits(5) + 1);
    const int num_lengths = Bits(4) + 4;
    if (num_literals > 286 || num_distances > 30)
      Throw(ErrorKind::kCorrupt, "{}: a block with too many codes", where_);
    std::array<uint8_t, 19> short_lengths{};
    for (int i = 0; i < num_lengths; ++i)
      short_lengths[kOrder[static_cast<size_t>(i)]] = static_cast<uint8_t>(Bits(3));
    const Code short_code(short_lengths, where_);
    const auto next_bit = [&] { return Bits(1); };
    std::vector<uint8_t> lengths;
    while (lengths.size() < num_literals + num_distances) {
      const int symbol = short_code.Decode(next_bit, where_);
      if (symbol < 16) {
        lengths.push_back(static_cast<uint8_t>(symbol));
        continue;
      }
      if (symbol == 16 && lengths.empty())
        Throw(ErrorKind::kCorrupt, "{}: a repeated length without one before it", where_);
      const uint8_t repeated = symbol == 16 ? lengths.back() : uint8_t{0};
      const int times = symbol == 16 ? 3 + Bits(2) : symbol == 17 ? 3 + Bits(3) : 11 + Bits(7);
      lengths.insert(lengths.end(), static_cast<size_t>(times), repeated);
    }
    if (lengths.size() != num_literals + num_distances || lengths[kEndOfBlock] == 0)
      Throw(ErrorKind::kCorrupt, "{}: lengths of codes that do not fit", where_);
    const std::span<const uint8_t> all(lengths);
    return {Code(all.first(num_literals), where_), Code(all.subspan(num_literals), where_)};
  }

  void Block(const Codes& codes) {
    const auto next_bit = [&] { return Bits(1); };
    while (true) {
      const int symbol = codes.literals.Decode(next_bit, where_);
      if (symbol == kEndOfBlock) return;
      if (symbol < kEndOfBlock)
        Put(static_cast<char>(symbol));
      else
        Repeat(symbol, codes.distances);
    }
  }

  void Repeat(int length_symbol, const Code& distances) {
    static constexpr std::array<int, 29> kLengths = {3,  4,  5,  6,   7,   8,   9,   10,  11, 13,
                                                     15, 17, 19, 23,  27,  31,  35,  43,  51, 59,
                                                     67, 83, 99, 115, 131, 163, 195, 227, 258};
    static constexpr std::array<int, 29> kLengthBits = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                                        2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
    static constexpr std::array<int, 30> kDistances = {
        1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
        193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
    const auto l = static_cast<size_t>(length_symbol - kEndOfBlock - 1);
    if (l >= kLengths.size()) Throw(ErrorKind::kCorrupt, "{}: a length that is none", where_);
    const int length = kLengths[l] + Bits(kLengthBits[l]);
    const auto d = static_cast<size_t>(distances.Decode([&] { return Bits(1); }, where_));
    if (d >= kDistances.size()) Throw(ErrorKind::kCorrupt, "{}: a distance that is none", where_);
    const int distance_bits = d < 4 ? 0 : static_cast<int>(d / 2) - 1;
    const auto distance = static_cast<size_t>(kDistances[d] + Bits(distance_bits));
    if (distance > out_.size())
      Throw(ErrorKind::kCorrupt, "{}: repeats what lies before the beginning", where_);
    for (int i = 0; i < length; ++i) Put(out_[out_.size() - distance]);
  }

  std::span<const std::byte> data_;
  size_t size_;
  const std::string& where_;
  size_t bit_ = 0;
  std::string out_;
};

}  // namespace

std::string Inflate(std::span<const std::byte> data, size_t size, const std::string& where) {
  return Inflater(data, size, where).Run();
}

}  // namespace wideload::formats

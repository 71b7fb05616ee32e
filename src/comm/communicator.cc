#include "comm/communicator.h"

#include <algorithm>
#include <cstring>

namespace wideload::comm {
namespace {

std::string PlaceText(const PeerLost::Details& details) {
  std::string text = fmt::format("rank {}", details.rank);
  if (details.where.iteration >= 0) text += fmt::format(", iteration {}", details.where.iteration);
  if (details.where.layer >= 0) text += fmt::format(", layer {}", details.where.layer);
  return text;
}

std::string Message(const PeerLost::Details& details) {
  return fmt::format("{}: waited for {} of rank {}: {}", PlaceText(details), details.awaited,
                     details.peer, details.cause);
}

}  // namespace

PeerLost::PeerLost(Details details)
    : Error(ErrorKind::kRunFailed, Message(details)), details_(std::move(details)) {}

void Communicator::AllGatherV(std::span<const std::byte> mine, std::vector<std::byte>& all,
                              std::vector<int64_t>& offsets) {
  const auto num_ranks = static_cast<size_t>(size());
  offsets.resize(num_ranks + 1);
  offsets[0] = 0;
  AllGatherValue(static_cast<int64_t>(mine.size()), std::span(offsets).subspan(1));
  const auto longest = static_cast<size_t>(*std::max_element(offsets.begin() + 1, offsets.end()));
  padded_.resize(longest * (num_ranks + 1));
  const std::span<std::byte> own = std::span(padded_).first(longest);
  if (!mine.empty()) std::memcpy(own.data(), mine.data(), mine.size());
  AllGather(own, std::span(padded_).subspan(longest));
  for (size_t r = 0; r < num_ranks; ++r) offsets[r + 1] += offsets[r];
  all.resize(static_cast<size_t>(offsets[num_ranks]));
  for (size_t r = 0; r < num_ranks; ++r) {
    const auto count = static_cast<size_t>(offsets[r + 1] - offsets[r]);
    if (count > 0) std::memcpy(all.data() + offsets[r], padded_.data() + longest * (r + 1), count);
  }
}

void Communicator::AllGatherColumns(const ColumnBlock& block) {
  int64_t widest = 0;
  for (int r = 0; r < size(); ++r) widest = std::max(widest, block.Width(r));
  const auto piece = static_cast<size_t>(widest * block.num_rows);
  padded_.resize(piece * (static_cast<size_t>(size()) + 1));
  // Between the block and where a rank's columns lie one row after the other.
  const auto for_each_row = [&](int r, std::byte* packed, auto copy) {
    const auto width = static_cast<size_t>(block.Width(r));
    std::byte* row = block.data + block.Begin(r);
    for (int64_t i = 0; i < block.num_rows && width > 0; ++i) {
      copy(row, packed, width);
      row += block.row_stride_bytes;
      packed += width;
    }
  };
  const std::span<std::byte> own = std::span(padded_).first(piece);
  for_each_row(rank(), own.data(), [](const std::byte* row, std::byte* packed, size_t width) {
    std::memcpy(packed, row, width);
  });
  AllGather(own, std::span(padded_).subspan(piece));
  for (int r = 0; r < size(); ++r)
    if (r != rank())
      for_each_row(r, padded_.data() + piece * (static_cast<size_t>(r) + 1),
                   [](std::byte* row, const std::byte* packed, size_t width) {
                     std::memcpy(row, packed, width);
                   });
}

}  // namespace wideload::comm

#include "runtime/servers/block_reader.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "runtime/servers/block_request.h"

namespace wideload::runtime {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kFirstTime{10'000};  // at the start, when machines have much to do
// Twice as much, to connect and to be greeted, is less than what other ranks wait for this one.
constexpr milliseconds kAgainTime{1'500};
constexpr milliseconds kPause{10'000};

}  // namespace

BlockReader::BlockReader(const comm::LifeCard& card, std::string whose,
                         std::chrono::milliseconds longest_silence)
    : card_(card),
      whose_(std::move(whose)),
      longest_silence_(longest_silence),
      socket_(ConnectAndHear(card_, whose_, kFirstTime)) {}

void BlockReader::Ask(const Source& from, const CachedPart& to, int64_t first_block) {
  failure_.clear();
  targets_.clear();
  const CachedSequence& sequence = from.sequence;
  BlockRequest request{.reader = to.part, .micro_batch = from.micro_batch, .blocks = {}};
  const PartLink link{.from = sequence.parts[from.rank], .to = to.part};
  for (size_t c = 0; c < sequence.tables.size(); ++c) {
    const auto block_class = static_cast<int64_t>(c);
    std::vector<int32_t>& asked = request.blocks.emplace_back();
    const std::vector<BlockMove> moves =
        MovesOf(sequence.tables[c], to.tables[c], link, first_block);
    if (moves.empty()) continue;
    const std::vector<BlockPiece> pieces =
        PiecesOf(*sequence.spec, to.cache, block_class, link, LinkEnd::kTo);
    if (pieces.empty()) continue;
    for (const BlockMove& move : moves) {
      asked.push_back(move.from);
      for (const BlockPiece& piece : pieces)
        targets_.push_back(
            to.cache.Block(block_class, move.to)
                .subspan(static_cast<size_t>(piece.offset), static_cast<size_t>(piece.num_bytes)));
    }
  }
  if (targets_.empty()) return;
  if (socket_->is_closed()) Reconnect();
  if (!failure_.empty()) return;
  std::vector<std::byte> bytes;
  WriteBlockRequest(request, bytes);
  socket_->Send(bytes);
}

void BlockReader::Reconnect() {
  failure_ = fmt::format("{} is not to be reached", whose_);
  if (steady_clock::now() < not_before_) return;
  try {
    socket_ = ConnectAndHear(card_, whose_, std::min(longest_silence_, kAgainTime));
    failure_.clear();
  } catch (const Error&) {
    not_before_ = steady_clock::now() + kPause;
  }
}

FetchResult BlockReader::Take(const std::function<void(bool)>& note_life) {
  FetchResult result{.num_bytes = 0, .error = std::exchange(failure_, {})};
  if (!result.error.empty() || targets_.empty()) return result;
  if (!socket_->ReceiveInto(targets_, longest_silence_, note_life)) {
    result.error = fmt::format("{} has not sent them", whose_);
    return result;
  }
  for (const std::span<std::byte> target : targets_) result.num_bytes += std::ssize(target);
  return result;
}

}  // namespace wideload::runtime

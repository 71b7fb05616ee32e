#include "trace/trace.h"

#include <algorithm>

namespace wideload::trace {
namespace {

constexpr std::array<KindText, kNumSpanKinds> kTexts = {{
    {"schedule", "engine", nullptr},
    {"balance", "engine", nullptr},
    {"step", "engine", nullptr},
    {"collect", "engine", nullptr},
    {"iteration", "compute", "tokens"},
    {"embed", "compute", nullptr},
    {"attention", "compute", nullptr},
    {"dense MLP", "compute", nullptr},
    {"MoE layer", "exchange", nullptr},
    {"router", "compute", nullptr},
    {"counts", "exchange", "chunk"},
    {"split", "exchange", "chunk"},
    {"dispatch", "exchange", "chunk"},
    {"receive", "exchange", "chunk"},
    {"experts", "compute", "chunk"},
    {"return", "exchange", "chunk"},
    {"combine", "exchange", "chunk"},
    {"shared expert", "compute", nullptr},
    {"head", "compute", nullptr},
    {"sample", "compute", nullptr},
    {"wait for counts", "wait", "peer"},
    {"wait for rows", "wait", "peer"},
    {"wait for results", "wait", "peer"},
    {"wait for copies", "wait", "moe_layer"},
    {"announce placements", "migration", "generation"},
    {"publish placements", "migration", "generation"},
    {"verify slots", "migration", nullptr},
    {"copy expert", "migration", "moe_layer"},
    {"plan placements", "migration", nullptr},
}};

int64_t ClockOffsetNs() {
  const auto wall = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(wall).count() - NowNs();
}

}  // namespace

const KindText& TextOf(SpanKind kind) { return kTexts[static_cast<size_t>(kind)]; }

Track::Track(int32_t rank, std::string name, size_t capacity)
    : rank_(rank), name_(std::move(name)), capacity_(capacity) {
  events_.reserve(capacity);
}

void Track::Add(const Event& event) {
  const std::lock_guard lock(mutex_);
  if (events_.size() < capacity_) {
    events_.push_back(event);
    return;
  }
  events_[oldest_] = event;
  oldest_ = (oldest_ + 1) % capacity_;
  ++num_dropped_;
}

TrackData Track::Read() const {
  const std::lock_guard lock(mutex_);
  TrackData data{.rank = rank_,
                 .name = name_,
                 .clock_offset_ns = ClockOffsetNs(),
                 .num_dropped = num_dropped_,
                 .events = events_};
  const auto oldest = data.events.begin() + static_cast<int64_t>(oldest_);
  std::rotate(data.events.begin(), oldest, data.events.end());
  return data;
}

Track& Trace::AddTrack(int32_t rank, std::string name) {
  const std::lock_guard lock(mutex_);
  return tracks_.emplace_back(rank, std::move(name), track_events_);
}

std::vector<TrackData> Trace::Read() const {
  const std::lock_guard lock(mutex_);
  std::vector<TrackData> tracks;
  for (const Track& track : tracks_) tracks.push_back(track.Read());
  return tracks;
}

void Span::Begin(SpanKind kind, int64_t detail) {
  event_ = {.begin_ns = NowNs(),
            .iteration = track_->iteration,
            .layer = track_->layer,
            .detail = static_cast<int32_t>(detail),
            .kind = kind};
}

void Span::End() {
  event_.end_ns = NowNs();
  track_->Add(event_);
}

}  // namespace wideload::trace

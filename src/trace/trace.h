// What the threads of a run did when: each has a track, a ring of spans of fixed size, in which the
// newest ones stay. A thread without a track records nothing and pays for a look at a pointer.
// Track and Trace are thread-safe, but a track is written by one thread at a time.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace wideload::trace {

// What a span is of. TextOf says it in words.
enum class SpanKind : uint8_t {
  // the engine's thread
  kSchedule,  // planning an iteration
  kBalance,   // the online balancer's part of an iteration
  kStep,      // the ranks' iteration
  kCollect,   // taking their results
  // a rank's thread
  kIteration,
  kEmbed,
  kAttention,
  kDenseMlp,
  kMoe,  // the routed experts of a layer, with what follows but for waits inside it
  kRouter,
  kCounts,
  kSplit,
  kDispatch,
  kReceive,
  kExperts,
  kReturn,
  kCombine,
  kSharedExpert,
  kHead,
  kSample,
  // waits that are not over at once
  kWaitCounts,
  kWaitRows,
  kWaitResults,
  kWaitCopies,
  // migration
  kAnnounce,  // of a change to come: copies begin
  kPublish,   // the change takes effect
  kVerify,
  // other threads
  kCopy,
  kPlan,
};
inline constexpr size_t kNumSpanKinds = static_cast<size_t>(SpanKind::kPlan) + 1;

struct KindText {
  const char* name;
  const char* category;  // compute, exchange, wait, migration, engine
  const char* detail;    // what Event::detail is; null: nothing
};
const KindText& TextOf(SpanKind kind);

// std::chrono::steady_clock, nanoseconds.
inline int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// A span that has ended. -1: none.
struct Event {
  int64_t begin_ns = 0;  // NowNs
  int64_t end_ns = 0;
  int32_t iteration = -1;
  int32_t layer = -1;  // of the model
  int32_t detail = -1;
  SpanKind kind = SpanKind::kSchedule;
};
static_assert(sizeof(Event) == 32);

// What a track held when it was read.
struct TrackData {
  int32_t rank = -1;  // -1: the engine's
  std::string name;
  int64_t clock_offset_ns = 0;  // what makes NowNs of its process the wall clock's time
  int64_t num_dropped = 0;      // spans older than `events`, which are lost
  std::vector<Event> events;    // in the order in which they ended
};

class Track {
 public:
  // Memory: `capacity` events, taken as they come.
  Track(int32_t rank, std::string name, size_t capacity);
  Track(const Track&) = delete;
  Track& operator=(const Track&) = delete;

  // Replaces the oldest one when the ring is full.
  void Add(const Event& event);
  TrackData Read() const;

  // Of the spans to come; used by the thread that writes.
  int32_t iteration = -1;
  int32_t layer = -1;

 private:
  const int32_t rank_;
  const std::string name_;
  const size_t capacity_;
  mutable std::mutex mutex_;  // guards what follows
  std::vector<Event> events_;
  size_t oldest_ = 0;  // once the ring is full
  int64_t num_dropped_ = 0;
};

// The tracks of a process. They stay as long as the trace does.
class Trace {
 public:
  // Spans that a track keeps: 8 MiB.
  static constexpr size_t kTrackEvents = size_t{1} << 18;

  explicit Trace(size_t track_events = kTrackEvents) : track_events_(track_events) {}

  // rank -1: of the engine. Tracks of a rank are shown in the order in which they were added.
  Track& AddTrack(int32_t rank, std::string name);
  std::vector<TrackData> Read() const;
  size_t track_events() const { return track_events_; }

 private:
  size_t track_events_;
  mutable std::mutex mutex_;  // guards tracks_
  std::deque<Track> tracks_;
};

namespace internal {
inline constinit thread_local Track* current = nullptr;
}  // namespace internal

// Gives this thread a track (null: none) for as long as the object lasts.
class OnTrack {
 public:
  explicit OnTrack(Track* track) : before_(std::exchange(internal::current, track)) {}
  ~OnTrack() { internal::current = before_; }
  OnTrack(const OnTrack&) = delete;
  OnTrack& operator=(const OnTrack&) = delete;

 private:
  Track* before_;
};

// Of the spans of this thread that begin from now on; -1: none.
inline void SetIteration(int64_t iteration) {
  if (internal::current != nullptr) internal::current->iteration = static_cast<int32_t>(iteration);
}
inline void SetLayer(int64_t layer) {
  if (internal::current != nullptr) internal::current->layer = static_cast<int32_t>(layer);
}

// The spans of this thread that begin while it lasts are of another layer.
class AtLayer {
 public:
  explicit AtLayer(int64_t layer)
      : before_(internal::current != nullptr ? internal::current->layer : -1) {
    SetLayer(layer);
  }
  ~AtLayer() { SetLayer(before_); }
  AtLayer(const AtLayer&) = delete;
  AtLayer& operator=(const AtLayer&) = delete;

 private:
  int32_t before_;
};

// Lasts as long as what it stands for. Spans of a thread nest.
class Span {
 public:
  explicit Span(SpanKind kind, int64_t detail = -1) : track_(internal::current) {
    if (track_ != nullptr) Begin(kind, detail);
  }
  ~Span() {
    if (track_ != nullptr) End();
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  void Begin(SpanKind kind, int64_t detail);
  void End();

  Track* track_;
  Event event_;
};

}  // namespace wideload::trace

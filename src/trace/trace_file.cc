#include "trace/trace_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <map>
#include <string>

namespace wideload::trace {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;

// Where a track is shown.
struct Place {
  int pid = 0;
  int tid = 1;  // 1 is the first of its process
};

std::string NameOf(const TrackData& track) {
  return track.rank < 0 ? "engine" : fmt::format("rank {}", track.rank);
}

std::string Header(const TrackData& track, const Place& place) {
  std::string text;
  const auto add = [&](const char* what, const std::string& args) {
    text += fmt::format(R"({{"ph":"M","name":"{}","pid":{},"tid":{},"args":{{{}}}}},)"
                        "\n",
                        what, place.pid, place.tid, args);
  };
  if (place.tid == 1) {
    add("process_name", fmt::format(R"("name":"{}")", NameOf(track)));
    add("process_sort_index", fmt::format(R"("sort_index":{})", place.pid));
  }
  add("thread_name", fmt::format(R"("name":"{}")", track.name));
  add("thread_sort_index", fmt::format(R"("sort_index":{})", place.tid));
  return text;
}

void AppendEvent(const Event& event, const Place& place, int64_t offset_ns, std::string& text) {
  const KindText& kind = TextOf(event.kind);
  auto out = std::back_inserter(text);
  fmt::format_to(out,
                 R"({{"ph":"X","name":"{}","cat":"{}","pid":{},"tid":{},"ts":{:.3f},"dur":{:.3f})",
                 kind.name, kind.category, place.pid, place.tid,
                 static_cast<double>(event.begin_ns + offset_ns) * 1e-3,
                 static_cast<double>(event.end_ns - event.begin_ns) * 1e-3);
  const char* before = R"(,"args":{)";
  const auto add = [&](const char* name, int32_t value) {
    if (name == nullptr || value < 0) return;
    fmt::format_to(out, R"({}"{}":{})", before, name, value);
    before = ",";
  };
  add("iteration", event.iteration);
  add("layer", event.layer);
  add(kind.detail, event.detail);
  text += *before == ',' && before[1] == '\0' ? "}},\n" : "},\n";
}

std::string Footer(std::span<const TrackData> tracks) {
  // The array cannot end with a comma.
  std::string text = R"({"ph":"M","name":"trace_end","pid":0,"tid":0,"args":{}}
],
"displayTimeUnit":"ns",
"otherData":{"spans":{)";
  const char* before = "";
  for (const TrackData& track : tracks) {
    text += fmt::format(R"({}"{}: {}":{{"kept":{},"dropped":{}}})", before, NameOf(track),
                        track.name, track.events.size(), track.num_dropped);
    before = ",";
  }
  return text + "}}}\n";
}

}  // namespace

void WriteTraceJson(std::span<const TrackData> tracks, FunctionRef<void(std::string_view)> append) {
  int64_t first_ns = std::numeric_limits<int64_t>::max();
  for (const TrackData& track : tracks)
    for (const Event& event : track.events)
      first_ns = std::min(first_ns, event.begin_ns + track.clock_offset_ns);
  std::map<int32_t, int> num_tracks;  // by rank
  std::string text = "{\"traceEvents\":[\n";
  for (const TrackData& track : tracks) {
    const Place place{.pid = track.rank + 1, .tid = ++num_tracks[track.rank]};
    text += Header(track, place);
    for (const Event& event : track.events) {
      AppendEvent(event, place, track.clock_offset_ns - first_ns, text);
      if (text.size() < kPieceBytes) continue;
      append(text);
      text.clear();
    }
  }
  append(text + Footer(tracks));
}

}  // namespace wideload::trace

// A Jinja template as chat templates are written: the language of jinja2 3.1 with the settings and
// functions of transformers. Immutable after construction; thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja/marked_text.h"
#include "jinja/value.h"

namespace wideload::jinja {

// What strftime_now() shows: a date and time without zone.
struct CivilTime {
  int year = 1970;
  int month = 1;
  int day = 1;
  int hour = 0;
  int minute = 0;
  int second = 0;
  int microsecond = 0;
};

// Bounds of one rendering. What they bound is counted, not timed: the same template and variables
// are refused everywhere or nowhere.
struct RenderLimits {
  int64_t max_steps = 20'000'000;               // statements, expressions, items
  int64_t max_work_bytes = int64_t{256} << 20;  // made, copied or looked through
  int64_t max_output_bytes = int64_t{32} << 20;
  int max_level = 1000;  // of statements, expressions and calls within each other
};

// What a rendering depends on beside its variables, and its budget.
struct RenderOptions {
  CivilTime now{};
  RenderLimits limits{};
};

struct Program;

// White space: trim_blocks and lstrip_blocks. Functions of transformers: raise_exception(text),
// strftime_now(format), the filter tojson, the block generation. The sandbox of transformers:
// lists and mappings cannot be changed. What Python has and this does not: integers beyond 64 bits
// are printed but not computed with; strings are never marked as safe HTML, so that the filter safe
// does nothing.
class Template {
 public:
  static constexpr size_t kMaxBytes = 1 << 20;

  // `source` is the template's name in errors. Errors: kUnsupported or kCorrupt with the line and
  // the construct.
  Template(std::string_view text, std::string source);

  // What the template prints, given its variables. Errors, with source and line: kInvalid when
  // the template refuses its input (raise_exception) or meets values that it cannot work with,
  // kUnsupported for what it asks of Python and is not there, kResource beyond the limits.
  MarkedText Render(const std::vector<std::pair<std::string, Value>>& variables,
                    const RenderOptions& options) const;

  const std::string& source() const { return source_; }
  const std::string& text() const { return text_; }

 private:
  std::string source_;
  std::string text_;
  std::shared_ptr<const Program> program_;  // shared by copies of this template; immutable
};

}  // namespace wideload::jinja

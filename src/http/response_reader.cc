#include "http/response_reader.h"

#include <algorithm>
#include <optional>

namespace wideload::http {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsBlank(char c) { return c == ' ' || c == '\t'; }
// What a value or a reason may consist of; bytes above 127 are somebody's text.
bool IsText(char c) { return c == '\t' || (static_cast<unsigned char>(c) >= ' ' && c != 0x7f); }
char SmallLetter(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool IsNameLetter(char c) {
  const char small = SmallLetter(c);
  return (small >= 'a' && small <= 'z') || IsDigit(c) ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && IsBlank(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsBlank(text.back())) text.remove_suffix(1);
  return text;
}

// The words of a list that commas part, blanks around them left out.
std::vector<std::string_view> Words(std::string_view list) {
  std::vector<std::string_view> words;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    words.push_back(Trimmed(list.substr(begin, end - begin)));
    begin = end + 1;
  }
  return words;
}

std::optional<uint64_t> ReadLength(std::string_view text) {
  constexpr size_t kMaxDigits = 18;  // below 2^63
  if (text.empty() || text.size() > kMaxDigits || !std::ranges::all_of(text, IsDigit)) return {};
  uint64_t length = 0;
  for (const char c : text) length = length * 10 + static_cast<uint64_t>(c - '0');
  return length;
}

}  // namespace

bool IsFieldName(std::string_view name, std::string_view small) {
  return std::ranges::equal(name, small, {}, SmallLetter);
}

std::string_view ResponseHead::Find(std::string_view name) const {
  for (const auto& [other, value] : fields)
    if (IsFieldName(other, name)) return value;
  return {};
}

bool ResponseReader::Feed(std::string_view bytes, const ResponseSinks& sinks) {
  rest_ += bytes;
  size_t taken = 0;
  while (!is_done() && error_.empty() && taken < rest_.size()) {
    const std::string_view left = std::string_view(rest_).substr(taken);
    const size_t count = IsInBody() ? TakeBody(left, sinks) : TakeLine(left, sinks);
    if (count == 0) break;
    taken += count;
  }
  rest_.erase(0, taken);
  return error_.empty();
}

bool ResponseReader::End() {
  if (state_ == State::kToEnd) state_ = State::kDone;
  return is_done();
}

size_t ResponseReader::TakeBody(std::string_view bytes, const ResponseSinks& sinks) {
  if (state_ != State::kToEnd) bytes = bytes.substr(0, std::min<uint64_t>(bytes.size(), num_left_));
  sinks.body(bytes);
  if (state_ == State::kToEnd) return bytes.size();
  num_left_ -= bytes.size();
  if (num_left_ == 0) state_ = state_ == State::kLength ? State::kDone : State::kChunkEnd;
  return bytes.size();
}

// 0 when the line's end has not come.
size_t ResponseReader::TakeLine(std::string_view bytes, const ResponseSinks& sinks) {
  const size_t end = bytes.find("\r\n", num_scanned_);
  const size_t seen = end == std::string_view::npos ? bytes.size() : end + 2;
  num_scanned_ = 0;
  if (num_of_head_ + seen > kMaxHeadBytes) {
    Refuse("head of more than 64 KiB");
    return 0;
  }
  if (end == std::string_view::npos) {
    num_scanned_ = bytes.size() - 1;  // the last byte may be half of a line's end
    return 0;
  }
  num_of_head_ += seen;
  Read(bytes.substr(0, end), sinks);
  return seen;
}

void ResponseReader::Read(std::string_view line, const ResponseSinks& sinks) {
  switch (state_) {
    case State::kStatus:
      return ReadStatus(line);
    case State::kFields:
      return line.empty() ? EndHead(sinks) : ReadField(line, &head_);
    case State::kChunkSize:
      return ReadChunkSize(line);
    case State::kChunkEnd:
      if (!line.empty()) return Refuse("bad chunk");
      state_ = State::kChunkSize;
      num_of_head_ = 0;
      return;
    case State::kTrailer:
      if (!line.empty()) return ReadField(line, nullptr);
      state_ = State::kDone;
      return;
    case State::kLength:
    case State::kToEnd:
    case State::kChunk:
    case State::kDone:
      break;  // these have no lines
  }
}

// "HTTP/1.1 200 OK"
void ResponseReader::ReadStatus(std::string_view line) {
  constexpr size_t kVersion = 9;  // bytes, with the blank
  is_old_ = line.starts_with("HTTP/1.0 ");
  if (!is_old_ && !line.starts_with("HTTP/1.1 ")) return Refuse("bad version");
  const std::string_view rest = line.substr(kVersion);
  if (rest.size() < 3 || !std::ranges::all_of(rest.substr(0, 3), IsDigit) || rest[0] == '0' ||
      (rest.size() > 3 && rest[3] != ' ') || !std::ranges::all_of(rest, IsText))
    return Refuse("bad status");
  head_.status = (rest[0] - '0') * 100 + (rest[1] - '0') * 10 + (rest[2] - '0');
  if (head_.status == 101) return Refuse("bad status");  // nobody asked for another protocol
  state_ = State::kFields;
}

// "Name: value"; without a head it is only looked at.
void ResponseReader::ReadField(std::string_view line, ResponseHead* head) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0) return Refuse("bad field");
  const std::string_view name = line.substr(0, colon);
  const std::string_view value = Trimmed(line.substr(colon + 1));
  if (!std::ranges::all_of(name, IsNameLetter) || !std::ranges::all_of(value, IsText))
    return Refuse("bad field");
  if (head != nullptr) head->fields.emplace_back(name, value);
}

void ResponseReader::EndHead(const ResponseSinks& sinks) {
  num_of_head_ = 0;
  if (head_.status < 200) {  // another one follows
    head_ = {};
    state_ = State::kStatus;
    return;
  }
  ReadFraming();
  if (!error_.empty()) return;
  has_head_ = true;
  sinks.head(head_);
}

// How the body ends. Two ways at once are refused: they may mean two things.
void ResponseReader::ReadFraming() {
  keeps_alive_ = !is_old_;
  bool has_coding = false;
  std::optional<uint64_t> length;
  for (const auto& [name, value] : head_.fields) {
    if (IsFieldName(name, "connection")) {
      for (const std::string_view word : Words(value)) {
        if (IsFieldName(word, "close")) keeps_alive_ = false;
        if (IsFieldName(word, "keep-alive") && is_old_) keeps_alive_ = true;
      }
    } else if (IsFieldName(name, "transfer-encoding")) {
      has_coding = true;
      head_.is_chunked = IsFieldName(Words(value).back(), "chunked");
    } else if (IsFieldName(name, "content-length")) {
      const std::optional<uint64_t> said = ReadLength(value);
      if (!said || (length && *length != *said)) return Refuse("bad length");
      length = said;
    }
  }
  if (has_coding && length) return Refuse("bad length");
  num_left_ = length.value_or(0);
  const bool has_none = head_.status == 204 || head_.status == 304 || length == 0U;
  state_ = has_none           ? State::kDone
           : head_.is_chunked ? State::kChunkSize
           : length           ? State::kLength
                              : State::kToEnd;
  if (state_ == State::kToEnd) keeps_alive_ = false;
}

// "1f;name=value"
void ResponseReader::ReadChunkSize(std::string_view line) {
  constexpr size_t kMaxDigits = 15;  // below 2^63
  size_t digits = 0;
  num_left_ = 0;
  for (; digits < line.size(); ++digits) {
    const char c = SmallLetter(line[digits]);
    if (!IsDigit(c) && (c < 'a' || c > 'f')) break;
    if (digits == kMaxDigits) return Refuse("bad chunk");
    num_left_ = num_left_ * 16 + static_cast<uint64_t>(IsDigit(c) ? c - '0' : c - 'a' + 10);
  }
  const std::string_view rest = Trimmed(line.substr(digits));
  if (digits == 0 || (!rest.empty() && rest[0] != ';') || !std::ranges::all_of(rest, IsText))
    return Refuse("bad chunk");
  state_ = num_left_ > 0 ? State::kChunk : State::kTrailer;
  num_of_head_ = 0;
}

}  // namespace wideload::http

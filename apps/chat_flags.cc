#include "chat_flags.h"

#include <chrono>
#include <ctime>

namespace wideload::apps {

void AddChatTemplateFlag(Command command, std::string& file) {
  command.Add("--chat-template", file,
              "file with the chat template (Jinja), instead of the model's own");
}

chat::ChatTemplate OpenChatTemplate(const std::string& folder, const std::string& file) {
  return file.empty() ? chat::ChatTemplate::FromFolder(folder) : chat::ChatTemplate::FromFile(file);
}

jinja::CivilTime LocalTime() {
  const auto now = std::chrono::system_clock::now();
  const auto seconds = std::chrono::floor<std::chrono::seconds>(now);
  const std::time_t time = std::chrono::system_clock::to_time_t(seconds);
  std::tm local{};
  ::localtime_r(&time, &local);
  const auto rest = std::chrono::duration_cast<std::chrono::microseconds>(now - seconds);
  return {.year = local.tm_year + 1900,
          .month = local.tm_mon + 1,
          .day = local.tm_mday,
          .hour = local.tm_hour,
          .minute = local.tm_min,
          .second = local.tm_sec,
          .microsecond = static_cast<int>(rest.count())};
}

}  // namespace wideload::apps

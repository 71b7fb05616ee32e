#include "command_line.h"

#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <iostream>
#include <optional>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "interrupt.h"
#include "version.h"

namespace wideload::apps {
namespace {

// "-m,--ep-size" -> "-m,--ep-size,--ep_size".
std::string WithUnderscores(const std::string& names) {
  std::string all = names;
  for (const std::string& name : CLI::detail::split(names, ',')) {
    if (!name.starts_with("--")) continue;
    std::string underscored = name;
    std::replace(underscored.begin() + 2, underscored.end(), '-', '_');
    if (underscored != name) all += "," + underscored;
  }
  return all;
}

// The subcommand that was reached, the program itself if none.
const CLI::App& Reached(const CLI::App& app) {
  const std::vector<CLI::App*> parsed = app.get_subcommands();
  return parsed.empty() ? app : Reached(*parsed.back());
}

// "wideload: error: ..." with what was found and, for a subcommand or a value, what is allowed.
std::string FailureMessage(const CLI::App* app, const CLI::Error& error) {
  const CLI::App& reached = Reached(*app);
  std::string message = error.what();
  if (error.get_name() == "RequiredError" && !reached.get_subcommands({}).empty()) {
    const std::vector<std::string> rest = app->remaining(true);
    message = rest.empty() ? "a subcommand is required"
                           : fmt::format("\"{}\" is no subcommand", rest.front());
    std::vector<std::string> names;
    for (const CLI::App* sub : reached.get_subcommands({})) names.push_back(sub->get_name());
    message += fmt::format("; allowed: {}", fmt::join(names, ", "));
  } else if (error.get_name() == "ConversionError") {
    for (const CLI::Option* option : reached.get_options())
      if (message.find(option->get_name()) != std::string::npos)
        message += fmt::format("; allowed: {}", option->get_type_name());
  }
  std::string command;  // with the groups it belongs to
  for (const CLI::App* at = &reached; at->get_parent() != nullptr; at = at->get_parent())
    command.insert(0, at->get_name()).insert(0, " ");
  return fmt::format("wideload: error: {}\nRun wideload{} --help for the options\n", message,
                     command);
}

// Refuses what is no finite number or not allowed; `allowed` is what the message says about it.
CLI::Validator NumberCheck(const std::string& name, const std::string& allowed,
                           const std::function<bool(double)>& is_allowed) {
  const auto check = [allowed, is_allowed](const std::string& text) -> std::string {
    double value = 0;
    if (CLI::detail::lexical_cast(text, value) && std::isfinite(value) && is_allowed(value))
      return "";
    return fmt::format("found {}; allowed: {}", text, allowed);
  };
  return CLI::Validator(check, name);
}

// std::stoull and the like take "-1" for 2^64 - 1.
CLI::Validator UnsignedCheck() {
  const auto check = [](const std::string& text) -> std::string {
    if (text.find_first_not_of("0123456789") == std::string::npos) return "";
    return fmt::format("found {}; allowed: 0 to 2^64 - 1", text);
  };
  return CLI::Validator(check, "");
}

}  // namespace

Option Option::Required() const { return Option(option_->required()); }
Option Option::Positive() const {
  return Option(option_->check(NumberCheck("POSITIVE", "above 0", [](double x) { return x > 0; })));
}
Option Option::NonNegative() const {
  return Option(
      option_->check(NumberCheck("NONNEGATIVE", "0 or more", [](double x) { return x >= 0; })));
}
Option Option::CommaSeparated() const { return Option(option_->delimiter(',')); }
Option Option::OneValueEach() const { return Option(option_->allow_extra_args(false)); }
Option Option::ShowDefault() const { return Option(option_->capture_default_str()); }

template <class T>
Option Option::Range(T min, T max) const {
  const auto is_allowed = [min, max](double x) {
    return x >= static_cast<double>(min) && x <= static_cast<double>(max);
  };
  return Option(option_->check(NumberCheck(fmt::format("{} to {}", min, max),
                                           fmt::format("{} to {}", min, max), is_allowed)));
}
template Option Option::Range(int32_t min, int32_t max) const;
template Option Option::Range(int64_t min, int64_t max) const;
template Option Option::Range(double min, double max) const;

Command Command::Subcommand(const std::string& name, const std::string& summary) const {
  return Command(app_->add_subcommand(name, summary));
}

void Command::RequireSubcommand() const { app_->require_subcommand(1); }

template <class T>
Option Command::Add(const std::string& names, T& value, const std::string& help) const {
  const std::string all = WithUnderscores(names);
  if constexpr (std::is_same_v<T, bool>)
    return Option(app_->add_flag(all, value, help));
  else if constexpr (std::is_same_v<T, uint64_t>)
    return Option(app_->add_option(all, value, help)->check(UnsignedCheck()));
  else
    return Option(app_->add_option(all, value, help));
}
template Option Command::Add(const std::string&, bool&, const std::string&) const;
template Option Command::Add(const std::string&, std::string&, const std::string&) const;
template Option Command::Add(const std::string&, int32_t&, const std::string&) const;
template Option Command::Add(const std::string&, int64_t&, const std::string&) const;
template Option Command::Add(const std::string&, uint64_t&, const std::string&) const;
template Option Command::Add(const std::string&, double&, const std::string&) const;
template Option Command::Add(const std::string&, std::optional<std::string>&,
                             const std::string&) const;
template Option Command::Add(const std::string&, std::optional<int32_t>&, const std::string&) const;
template Option Command::Add(const std::string&, std::optional<int64_t>&, const std::string&) const;
template Option Command::Add(const std::string&, std::optional<double>&, const std::string&) const;
template Option Command::Add(const std::string&, std::vector<std::string>&,
                             const std::string&) const;
template Option Command::Add(const std::string&, std::vector<int32_t>&, const std::string&) const;

void Command::OnRun(std::function<void()> run) const { app_->callback(std::move(run)); }

Program::Program(const std::string& name, const std::string& summary)
    : app_(std::make_unique<CLI::App>(summary, name)) {
  app_->require_subcommand(1);
  app_->failure_message(FailureMessage);
  app_->set_version_flag("--version", fmt::format("{} {}", name, kVersion));
}

Program::~Program() = default;

int Program::Run(int argc, char** argv) {
  try {
    app_->parse(argc, argv);
  } catch (const CLI::RuntimeError& e) {
    return e.get_exit_code();
  } catch (const CLI::ParseError& e) {
    return app_->exit(e) == 0 ? 0 : 2;
  } catch (const std::exception& e) {
    return ReportFailure(e);
  }
  return InterruptExitCode();
}

void EndSilently(int code) { throw CLI::RuntimeError(code); }

int ReportFailure(const std::exception& failure) {
  const auto* const error = dynamic_cast<const Error*>(&failure);
  std::fprintf(stderr, "%swideload: %s: %s\n", LogPrefix().c_str(),
               error != nullptr ? "error" : "internal error", failure.what());
  if (error == nullptr) return 1;
  const int interrupted = InterruptExitCode();
  return interrupted != 0 ? interrupted : ExitCode(error->kind());
}

int FinishOutput(int code) {
  if (code != 0 || (std::cout.flush() && std::fflush(stdout) == 0 && std::ferror(stdout) == 0))
    return code;
  std::fprintf(stderr, "wideload: error: standard output: cannot write: %s\n",
               std::strerror(errno));
  return 1;
}

}  // namespace wideload::apps

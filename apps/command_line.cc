#include "command_line.h"

#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <functional>
#include <iostream>
#include <optional>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "config/known_keys.h"
#include "interrupt.h"
#include "refusal.h"
#include "version.h"

namespace wideload::apps {
namespace {

// "-m,--ep-size" -> "-m,--ep-size,--ep_size".
std::string WithUnderscores(const std::string& names) {
  std::string all = names;
  for (const std::string& name : CLI::detail::split(names, ',')) {
    const size_t dashes = name.find("--");  // "!--name" switches off
    if (dashes > 1) continue;
    std::string underscored = name;
    std::replace(underscored.begin() + static_cast<std::ptrdiff_t>(dashes) + 2, underscored.end(),
                 '-', '_');
    if (underscored != name) all += "," + underscored;
  }
  return all;
}

// The title under which a group lists the options of some of its commands.
const std::string kOptionsOf = "Options of ";
bool IsTitleFor(const std::string& title, const std::string& command) {
  if (!title.starts_with(kOptionsOf)) return false;
  const std::string commands = ", " + title.substr(kOptionsOf.size()) + ",";
  return commands.find(", " + command + ",") != std::string::npos;
}

// The subcommand that was reached, the program itself if none.
const CLI::App& Reached(const CLI::App& app) {
  const std::vector<CLI::App*> parsed = app.get_subcommands();
  return parsed.empty() ? app : Reached(*parsed.back());
}

// The command's option that is spelled most like it; "" when none is near.
std::string NearestOption(const CLI::App& command, std::string_view option) {
  std::string nearest;
  int least = static_cast<int>(option.size()) / 3 + 1;
  for (const CLI::Option* known : command.get_options())
    for (const std::string& name : known->get_lnames()) {
      const int distance = config::EditDistance(option, "--" + name, least);
      if (distance >= least) continue;
      least = distance;
      nearest = "--" + name;
    }
  return nearest;
}

// Of arguments that the command does not take.
std::string UnexpectedText(const CLI::App& command, const std::vector<std::string>& rest) {
  for (const std::string& argument : rest) {
    if (!argument.starts_with("-")) continue;
    const std::string option = argument.substr(0, argument.find('='));
    const std::string nearest = NearestOption(command, option);
    return fmt::format("{} is no option of {}{}", option, command.get_name(),
                       nearest.empty() ? "" : "; the nearest is " + nearest);
  }
  return fmt::format("\"{}\" was not expected", fmt::join(rest, " "));
}

// What was found and, for a subcommand or a value, what is allowed; then how to get help.
std::string FailureMessage(const CLI::App& app, const CLI::Error& error) {
  const CLI::App& reached = Reached(app);
  std::string message = error.what();
  if (error.get_name() == "RequiredError" && !reached.get_subcommands({}).empty()) {
    const std::vector<std::string> rest = app.remaining(true);
    message = rest.empty() ? "a subcommand is required"
                           : fmt::format("\"{}\" is no subcommand", rest.front());
    std::vector<std::string> names;
    for (const CLI::App* sub : reached.get_subcommands({})) names.push_back(sub->get_name());
    message += fmt::format("; allowed: {}", fmt::join(names, ", "));
  } else if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr) {  // named as the command
    message = UnexpectedText(reached, app.remaining(true));
  } else if (error.get_name() == "ConversionError") {  // of a bool: the others parse by themselves
    message += "; allowed: true, false";
  } else if (const size_t at = message.find(": At Most 1 required but received ");
             at != std::string::npos) {
    message = fmt::format("{} is given {} times; allowed: once", message.substr(0, at),
                          message.substr(message.rfind(' ') + 1));
  }
  std::string command;  // with the groups it belongs to
  for (const CLI::App* at = &reached; at->get_parent() != nullptr; at = at->get_parent())
    command.insert(0, at->get_name()).insert(0, " ");
  return fmt::format("{}\nRun wideload{} --help for the options", message, command);
}

// The element of a vector, what an optional holds, or T.
template <class T>
struct Element {
  using Type = T;
};
template <class T>
struct Element<std::optional<T>> {
  using Type = T;
};
template <class T>
struct Element<std::vector<T>> {
  using Type = T;
};

template <class T>
constexpr bool kIsNumber = std::is_arithmetic_v<T> && !std::is_same_v<T, bool>;

}  // namespace

Option Option::Required() const { return Option(option_->required(), limits_); }
Option Option::Positive() const { return Limited({.min = 0, .min_excluded = true}); }
Option Option::NonNegative() const { return Limited({.min = 0}); }
Option Option::Range(double min, double max) const { return Limited({.min = min, .max = max}); }
Option Option::CommaSeparated() const { return Option(option_->delimiter(','), limits_); }
Option Option::OneValueEach() const { return Option(option_->allow_extra_args(false), limits_); }
Option Option::ShowDefault() const { return Option(option_->capture_default_str(), limits_); }
Option Option::Group(std::string_view title) const {
  return Option(option_->group(std::string(title)), limits_);
}
Option Option::Limited(const config::Limits& limits) const {
  WIDELOAD_CHECK(limits_ != nullptr, "{} is no number", option_->get_name());
  *limits_ = limits;
  return *this;
}

Command Command::Subcommand(const std::string& name, const std::string& summary) const {
  return Command(app_->add_subcommand(name, summary));
}

void Command::RequireSubcommand() const { app_->require_subcommand(1); }

// A number, an optional one, or a vector of them.
template <class T>
Option Command::AddNumbers(const std::string& names, T& value, const std::string& help) const {
  using Number = typename Element<T>::Type;
  constexpr bool kIsVector = std::is_same_v<T, std::vector<Number>>;
  const auto limits = std::make_shared<config::Limits>();  // may be set later
  const auto parse = [&value, limits](const std::string& name, const std::string& text) {
    const auto number = config::ParseNumber<Number>(name, text, *limits);
    if constexpr (kIsVector)
      value.push_back(number);
    else
      value = number;
  };
  const auto value_text = [&value]() -> std::string {
    if constexpr (kIsNumber<T>)
      return fmt::format("{}", value);
    else
      return "";
  };
  Option option =
      AddParsed({.names = names, .help = help, .parse = parse, .value_text = value_text});
  option.limits_ = limits;
  option.option_->type_name_fn([limits] { return config::NumberKind<Number>(*limits); });
  if (kIsVector) option.option_->expected(CLI::detail::expected_max_vector_size);
  return option;
}

template <class T>
Option Command::Add(const std::string& names, T& value, const std::string& help) const {
  const std::string all = WithUnderscores(names);
  if constexpr (std::is_same_v<T, bool>) {
    return Option(app_->add_flag(all, value, help), nullptr);
  } else if constexpr (kIsNumber<typename Element<T>::Type>) {
    return AddNumbers(names, value, help);
  } else {
    return Option(app_->add_option(all, value, help), nullptr);
  }
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

Option Command::AddParsed(const ParsedOption& option) const {
  const auto own = std::make_shared<CLI::Option*>(nullptr);  // known once it is added
  const auto take = [parse = option.parse, own](const std::vector<std::string>& texts) {
    ReadOrRefuse([&] {
      for (const std::string& text : texts) parse((*own)->get_name(), text);
    });
    return true;
  };
  *own =
      app_->add_option(WithUnderscores(option.names), take, option.help, false, option.value_text);
  return Option((*own)->type_name(option.kind), nullptr);
}

Option Command::AddSwitch(const std::string& names, const std::function<void(bool)>& set,
                          const std::string& help) const {
  const std::function<void(int64_t)> take = [set](int64_t count) { set(count > 0); };
  return Option(app_->add_flag_function(WithUnderscores(names), take, help), nullptr);
}

Option Option::GroupOf(const std::vector<std::string>& commands) const {
  return Group(fmt::format("{}{}", kOptionsOf, fmt::join(commands, ", ")));
}

// A command runs when none of its subcommands was named; these do not take its options, but for
// those that it has for them.
void Command::OnRun(std::function<void()> run) const {
  app_->callback([app = app_, run = std::move(run)] {
    if (!app->get_subcommands().empty()) return;
    for (const CLI::App* below = app; below->get_parent() != nullptr; below = below->get_parent()) {
      const CLI::App& above = *below->get_parent();
      for (const CLI::Option* option : above.get_options())
        if (option->count() > 0 && !IsTitleFor(option->get_group(), below->get_name()))
          Throw(ErrorKind::kInvalid, "{} is an option of {}, not of {} {}", option->get_name(),
                above.get_name(), above.get_name(), below->get_name());
    }
    run();
  });
}

Program::Program(const std::string& name, const std::string& summary)
    : app_(std::make_unique<CLI::App>(summary, name)) {
  app_->require_subcommand(1);
  app_->set_version_flag("--version", fmt::format("{} {}", name, kVersion));
}

Program::~Program() = default;

int Program::Run(int argc, char** argv) {
  try {
    CheckStackLimit();
    app_->parse(argc, argv);
  } catch (const CLI::RuntimeError& e) {
    return e.get_exit_code();
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() != 0) return RefuseCommandLine(FailureMessage(*app_, e));
    return app_->exit(e);  // prints help or version
  } catch (const std::exception& e) {
    return ReportFailure(e);
  }
  return InterruptExitCode();
}

void ReadOrRefuse(const std::function<void()>& read) {
  try {
    read();
  } catch (const Error& e) {
    throw CLI::ValidationError(std::string(e.what()));
  }
}

void EndSilently(int code) { throw CLI::RuntimeError(code); }

std::string FailureText(const std::exception& failure) {
  if (dynamic_cast<const std::bad_alloc*>(&failure) != nullptr)
    return "the memory is used up (ulimit -v, or the limit of a container)";
  const bool is_error = dynamic_cast<const Error*>(&failure) != nullptr;
  return is_error ? failure.what() : fmt::format("internal error: {}", failure.what());
}

int ReportFailure(const std::exception& failure) {
  std::fprintf(stderr, "%swideload: error: %s\n", LogPrefix().c_str(),
               FailureText(failure).c_str());
  return FailureCode(failure);
}

int FailureCode(const std::exception& failure) {
  const auto* const error = dynamic_cast<const Error*>(&failure);
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

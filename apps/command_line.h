// The command line: the program, its commands and their options, each declared in one statement and
// bound to a variable. Stands for the library that parses, CLI11, which is expensive to compile:
// only command_line.cc includes it. Main thread only.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "config/number.h"

namespace CLI {  // NOLINT(readability-identifier-naming): the library's
class App;
class Option;
}  // namespace CLI

namespace wideload::apps {

// One option of a command. Each call adds a rule and returns the option, for the next rule. A value
// that breaks a rule is refused before the command runs.
class Option {
 public:
  Option Required() const;
  Option Positive() const;  // this, and the next two: of a number
  Option NonNegative() const;
  Option Range(double min, double max) const;  // both allowed
  Option CommaSeparated() const;               // of a vector: "a,b" is two values
  Option OneValueEach() const;                 // of a vector: the option is repeated for each value
  Option ShowDefault() const;                  // the help tells the value that the variable has now
  Option Group(std::string_view title) const;  // the help lists it under this title
  // Of a group of commands: it stands before the name of one of these, and is for them alone.
  Option GroupOf(const std::vector<std::string>& commands) const;

 private:
  friend class Command;
  Option(CLI::Option* option, std::shared_ptr<config::Limits> limits)
      : option_(option), limits_(std::move(limits)) {}
  Option Limited(const config::Limits& limits) const;

  CLI::Option* option_;                     // of the command's parser
  std::shared_ptr<config::Limits> limits_;  // of a number; null for other values
};

// An option that reads its value by itself.
struct ParsedOption {
  std::string names;  // as Command::Add takes them
  std::string help;
  std::string kind;  // stands for the value in the help
  // Called with the option's long name and what was given. Errors: kInvalid for what is not
  // allowed.
  std::function<void(const std::string& name, const std::string& text)> parse;
  std::function<std::string()> value_text;  // the value now, for ShowDefault
};

// The program or one of its commands; lives as long as the Program.
class Command {
 public:
  Command Subcommand(const std::string& name, const std::string& summary) const;
  void RequireSubcommand() const;

  // An option that sets `value`, which must live until the program has run. `names` are separated
  // by commas: "--ep-size", "-m,--model", or bare for an argument told by its place ("file");
  // --ep-size can be spelled --ep_size, too. T: std::string, int32_t, int64_t, uint64_t, double;
  // std::optional of these but uint64_t, empty when not given; a vector of std::string or int32_t;
  // bool, which is a flag without a value. Numbers are decimal and finite.
  template <class T>
  Option Add(const std::string& names, T& value, const std::string& help) const;
  Option AddParsed(const ParsedOption& option) const;
  // A bool that `set` takes.
  Option AddSwitch(const std::string& names, const std::function<void(bool)>& set,
                   const std::string& help) const;

  // Makes the command call run(Flags&) once the command line has been read, Errors included.
  // Returns the Flags, for Add to bind; they live as long as the command.
  template <class Flags, class Run>
  Flags& Runs(Run run) const {
    const auto flags = std::make_shared<Flags>();  // owners: the copies of the callback
    OnRun([flags, run] { std::invoke(run, *flags); });
    return *flags;
  }

 private:
  friend class Program;
  explicit Command(CLI::App* app) : app_(app) {}
  void OnRun(std::function<void()> run) const;
  template <class T>
  Option AddNumbers(const std::string& names, T& value, const std::string& help) const;

  CLI::App* app_;
};

class Program {
 public:
  // Its --version is that of version.h.
  Program(const std::string& name, const std::string& summary);
  ~Program();
  Program(Program&&) = delete;

  Command command() const { return Command(app_.get()); }

  // Reads the command line and runs the command it names. Prints what is wrong with it, or what the
  // command throws, and returns the exit code.
  int Run(int argc, char** argv);

 private:
  std::unique_ptr<CLI::App> app_;
};

// Calls `read`; its Errors end the program like those of the command line: before work, told once.
// Of a command that runs.
void ReadOrRefuse(const std::function<void()>& read);

// Leaves the running command: Program::Run returns `code`, which is not 0, and prints nothing.
[[noreturn]] void EndSilently(int code);

// Prints "wideload: error: ..." and returns the exit code that goes with it, that of an interrupt
// if there was one.
int ReportFailure(const std::exception& failure);
// What it prints after "error: ", and that code.
std::string FailureText(const std::exception& failure);
int FailureCode(const std::exception& failure);

// Writes out what standard output still holds. Returns `code`, or 1 with a message when that was 0
// and something could not be written: a result that is lost is a failed run.
int FinishOutput(int code);

}  // namespace wideload::apps

#include "refusal.h"

#include <cstdio>
#include <cstdlib>
#include <optional>

#include "base/error.h"
#include "comm/mpi/launch.h"
#include "runtime/processes/process_world.h"

namespace wideload::apps {
namespace {

int Print(const std::string& message) {
  std::fprintf(stderr, "wideload: error: %s\n", message.c_str());
  return ExitCode(ErrorKind::kInvalid);
}

// Errors: `message`, which rank 0 prints, when its own command line can be read.
int RefuseWithOthers(runtime::ProcessWorld& world, const std::string& message) {
  if (!world.is_leader()) {
    if (const std::optional<int> code = world.NextPhase()) return *code;
    world.Together([&] { Throw(ErrorKind::kInvalid, "{}", message); });
  }
  const int code = Print(message);
  world.End(code);
  return code;
}

}  // namespace

int RefuseCommandLine(const std::string& message) {
  if (comm::DetectLaunch(std::getenv) != comm::Launch::kMpi) return Print(message);
  try {
    runtime::ProcessWorld world;
    try {
      return RefuseWithOthers(world, message);
    } catch (const Error& e) {
      if (world.has_agreed_to_end()) return ExitCode(e.kind());
      world.Fail(e.what());
      throw;
    }
  } catch (const std::exception&) {  // the others cannot be reached
    return Print(message);
  }
}

}  // namespace wideload::apps

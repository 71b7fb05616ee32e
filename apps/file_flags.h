// The files that a command was asked to read and to write, by the flags that name them.
#pragma once

#include <string>
#include <vector>

#include "base/file_uses.h"
#include "config/flags.h"

namespace wideload::apps {

// An empty path is no file.
FileUse Reads(std::string flag, std::string path);
FileUse Writes(std::string flag, std::string path);
FileUse WritesFolder(std::string flag, std::string path);

// Every command with an output calls this before any work: refuses outputs that would destroy an
// input or another output (RefuseSharedFiles). With an engine also what its flags and the
// environment name. Errors: kInvalid naming both flags.
void CheckFiles(const std::vector<FileUse>& uses);
void CheckFiles(const config::EngineFlags& engine, std::vector<FileUse> uses);

}  // namespace wideload::apps

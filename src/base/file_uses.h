// What a program was asked to read and to write, looked at as files rather than as paths: two
// spellings, links and hard links of one file are that file. Pure but for looking.
#pragma once

#include <span>
#include <string>

namespace wideload {

// One path of a command line.
struct FileUse {
  // How the path is used; a folder that is written is replaced as a whole.
  enum class Kind { kInput, kOutput, kOutputFolder };
  std::string option;  // for messages: "--dataset"
  std::string path;    // an input: a file, a folder, or "-"
  Kind kind = Kind::kInput;
};

// Refuses, before work, outputs that would destroy something: a file that is read too, also one of
// those that a model's or a recording's folder is read for; one that another output goes to; a
// folder that is replaced while something in it is read or written; standard output twice. What is
// not there, and streams such as /dev/null, are no files. Errors: kInvalid naming both options.
void RefuseSharedFiles(std::span<const FileUse> uses);

}  // namespace wideload

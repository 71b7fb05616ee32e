#include "base/file_uses.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/output_path.h"

namespace wideload {
namespace {

// A file or folder of this machine; with a name, one that is not there yet in that folder.
struct Identity {
  dev_t device = 0;
  ino_t inode = 0;
  std::string name = {};
  bool operator==(const Identity&) const = default;
};

Identity IdentityOf(const struct stat& info) {
  return {.device = info.st_dev, .inode = info.st_ino};
}

// What one use touches.
struct Touched {
  const FileUse* use;
  std::string shown;  // the path, or that of a file in the folder
  Identity self;
  std::optional<Identity> folder;  // that holds it, where it was followed
  bool is_folder = false;
};

// The files that a folder given as an input is read for: a model's and a recording's.
bool IsReadFromFolders(std::string_view name) {
  constexpr std::array<std::string_view, 9> kNames = {
      "config.json",           "generation_config.json",  "tokenizer.json",
      "tokenizer_config.json", "special_tokens_map.json", "chat_template.json",
      "chat_template.jinja",   "meta_info.json",          "model.safetensors.index.json"};
  for (const std::string_view known : kNames)
    if (name == known) return true;
  return name.ends_with(".safetensors");
}

std::string ParentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

std::optional<Identity> FolderOf(const std::string& path) {
  struct stat info {};
  if (::stat(ParentOf(path).c_str(), &info) != 0) return std::nullopt;
  return IdentityOf(info);
}

void AddFilesOf(const FileUse& use, std::vector<Touched>& touched) {
  DIR* const listing = ::opendir(use.path.c_str());
  if (listing == nullptr) return;
  while (const dirent* const entry = ::readdir(listing)) {
    const std::string path = use.path + "/" + entry->d_name;
    struct stat info {};
    if (IsReadFromFolders(entry->d_name) && ::stat(path.c_str(), &info) == 0)
      touched.push_back({.use = &use, .shown = path, .self = IdentityOf(info), .folder = {}});
  }
  ::closedir(listing);
}

void AddInput(const FileUse& use, std::vector<Touched>& touched) {
  struct stat info {};
  if (use.path == "-") {
    if (::fstat(STDIN_FILENO, &info) == 0 && S_ISREG(info.st_mode))
      touched.push_back(
          {.use = &use, .shown = "standard input", .self = IdentityOf(info), .folder = {}});
    return;
  }
  std::string path = use.path;
  if (::stat(path.c_str(), &info) != 0) {
    path = path.substr(0, path.rfind(':'));  // FILE:TENSOR
    if (::stat(path.c_str(), &info) != 0) return;
  }
  if (S_ISDIR(info.st_mode)) {
    touched.push_back(
        {.use = &use, .shown = path, .self = IdentityOf(info), .folder = {}, .is_folder = true});
    AddFilesOf(use, touched);
  } else if (S_ISREG(info.st_mode)) {
    touched.push_back(
        {.use = &use, .shown = path, .self = IdentityOf(info), .folder = FolderOf(path)});
  }
}

// Nothing for what cannot be written: the command says why.
void AddOutput(const FileUse& use, std::vector<Touched>& touched) {
  struct stat info {};
  if (::stat(use.path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
    if (use.kind != FileUse::Kind::kOutputFolder) return;
    touched.push_back({.use = &use,
                       .shown = use.path,
                       .self = IdentityOf(info),
                       .folder = {},
                       .is_folder = true});
    return;
  }
  try {
    const OutputPath place(use.path);
    Touched found{.use = &use, .shown = use.path, .self = {}, .folder = {}};
    if (place.is_stream()) {
      if (::fstat(place.stream().get(), &info) != 0) return;
      if (!S_ISREG(info.st_mode) && use.path != "-") return;
      found.self = S_ISREG(info.st_mode) ? IdentityOf(info) : Identity{.name = "-"};
    } else {
      if (::fstat(place.folder().get(), &info) != 0) return;
      found.folder = IdentityOf(info);
      found.self = place.existing() ? IdentityOf(*place.existing()) : *found.folder;
      if (!place.existing()) found.self.name = place.name();
    }
    touched.push_back(std::move(found));
  } catch (const Error&) {
    // its refusal comes from who opens it
  }
}

[[noreturn]] void Refuse(const Touched& output, const Touched& other, std::string_view verb) {
  Throw(ErrorKind::kInvalid, "{} is {}: {} ({}) {}; give another", output.use->option, output.shown,
        other.use->option, other.shown, verb);
}

void Compare(const Touched& output, const Touched& other) {
  const bool reads = other.use->kind == FileUse::Kind::kInput;
  if (output.self == other.self) Refuse(output, other, reads ? "is read there" : "goes there too");
  if (output.is_folder && other.folder == output.self)
    Refuse(output, other, reads ? "is read from that folder" : "goes into that folder");
}

}  // namespace

void RefuseSharedFiles(std::span<const FileUse> uses) {
  std::vector<Touched> inputs;
  std::vector<Touched> outputs;
  for (const FileUse& use : uses) {
    if (use.path.empty()) continue;
    if (use.kind == FileUse::Kind::kInput)
      AddInput(use, inputs);
    else
      AddOutput(use, outputs);
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    for (const Touched& input : inputs) Compare(outputs[i], input);
    for (size_t j = 0; j < outputs.size(); ++j)
      if (i != j) Compare(outputs[i], outputs[j]);
  }
}

}  // namespace wideload

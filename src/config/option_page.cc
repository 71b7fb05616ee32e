#include "config/option_page.h"

#include <algorithm>

#include "base/error.h"
#include "config/option_table.h"

namespace wideload::config {
namespace {

constexpr std::string_view kOpening =
    R"(# Options of the engine and of sampling

This page is the output of `wideload config docs`; a test compares them. `generate`, `chat`, `logits` and `bench throughput` take
these options; `logits` samples nothing and takes none of sampling. What else a command takes is told by `wideload COMMAND --help`.

- Every long option can be spelled with underscores: `--max-seq-len`, `--max_seq_len`.
- A value that is not allowed is refused before work: exit code 2, and a message that names the option, what was found and what is
  allowed.
- `--config FILE` reads options from YAML: TensorRT-LLM's LLM-API options, and those without such a key under their name with
  underscores (`split: first`). What counts is, in this order: the command line, the file, the model's generation_config.json, the
  default. `wideload config show` tells the values and where each comes from, `wideload config schema` prints a JSON schema.
- `wideload config check FILE...` tells what each key does: sets an option; has no effect here, and why; is not supported yet. A
  run refuses the last kind unless `--allow-unsupported` is given, and then says what is done instead. Unknown keys, keys that are
  there twice, and values that are not allowed are refused. [configuration-keys.md](configuration-keys.md) has the keys of real
  configurations.
- **Ranks** says what processes that mpirun or srun started must have been given alike. It is compared before work; a rank that
  differs is named, with both values. *alike*: the value. *file alike*: what is in the file. *own*: each its own. *rank 0*: only
  rank 0 looks at it. *derived*: what follows from it is compared, such as the model's tensors or the number of ranks.
- **TensorRT-LLM** is the key of the same setting in TensorRT-LLM's LLM-API options, or its field of SamplingParams.
)";

std::string_view AgreementText(Agreement agreement) {
  switch (agreement) {
    case Agreement::kAlike:
      return "alike";
    case Agreement::kAlikeFile:
      return "file alike";
    case Agreement::kOwn:
      return "own";
    case Agreement::kLeaderOnly:
      return "rank 0";
    case Agreement::kElsewhere:
      return "derived";
  }
  WIDELOAD_CHECK(false, "no agreement {}", static_cast<int>(agreement));
}

std::string Code(std::string_view text) { return text.empty() ? "" : fmt::format("`{}`", text); }

// A `|` would end the cell.
std::string Cell(std::string text) {
  for (size_t at = text.find('|'); at != std::string::npos; at = text.find('|', at + 2))
    text.insert(at, "\\");
  return text;
}

std::string Line(const OptionRow& row) {
  std::string names;
  for (const std::string_view spelling : Spellings(row))
    names += (names.empty() ? "" : " ") + Code(spelling);
  for (const std::string& spelling : OffSpellings(row)) names += " " + Code(spelling);
  const std::string kind = ValueKind(row);
  return fmt::format("| {} | {} | {} | {} | {} | {} |\n", names,
                     kind.empty() ? "no value" : Cell(kind), Cell(DefaultText(row)),
                     AgreementText(row.agreement), Code(row.trtllm_key),
                     Cell(std::string(row.help)));
}

}  // namespace

std::string OptionPage() {
  std::string page(kOpening);
  std::string_view title;
  for (const OptionRow& row : OptionTable()) {
    if (GroupTitle(row.group) != title) {
      title = GroupTitle(row.group);
      page += fmt::format(
          "\n## {}\n\n| option | value | default | ranks | TensorRT-LLM | meaning |\n"
          "|---|---|---|---|---|---|\n",
          title);
    }
    page += Line(row);
  }
  return page;
}

}  // namespace wideload::config

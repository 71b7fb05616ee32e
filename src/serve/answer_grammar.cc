#include "serve/answer_grammar.h"

#include <utility>
#include <vector>

#include "base/error.h"
#include "grammar/json_schema.h"
#include "grammar/pattern.h"
#include "serve/call_grammar.h"

namespace wideload::serve {
namespace {

using grammar::ExpressionId;
using grammar::Grammar;
using grammar::GrammarBuilder;

// Everything that the grammar depends on, as text.
class KeyText {
 public:
  void Add(std::string_view text) { key_ += fmt::format("{}:{}", text.size(), text); }
  void Add(int64_t number) { Add(std::to_string(number)); }
  void Add(const jinja::Value& value) {
    if (value.Seq() != nullptr) {
      Add("[");
      Add(static_cast<int64_t>(value.Seq()->items.size()));
      for (const jinja::Value& item : value.Seq()->items) Add(item);
    } else if (value.Map() != nullptr) {
      Add("{");
      Add(static_cast<int64_t>(value.Map()->entries().size()));
      for (const jinja::Dict::Entry& entry : value.Map()->entries()) {
        Add(entry.key);
        Add(entry.value);
      }
    } else if (value.Str() != nullptr) {
      Add("s");
      Add(value.Str()->text());
    } else if (value.Int() != nullptr) {
      Add(*value.Int());
    } else if (value.Float() != nullptr) {
      Add(fmt::format("{}f", *value.Float()));
    } else if (value.Big() != nullptr) {
      Add(value.Big()->digits);
    } else {
      Add(value.Bool() == nullptr ? "n" : *value.Bool() ? "t" : "f");
    }
  }
  const std::string& key() const { return key_; }

 private:
  std::string key_;
};

// How an answer to a conversation begins, before what is asked for.
enum class Opening { kNone, kThoughts, kMaybeThoughts, kChannels };

Opening OpeningOf(const RenderedChat* chat) {
  if (chat == nullptr) return Opening::kNone;
  if (chat->form.goes_on)
    return chat->form.begins_in_thoughts ? Opening::kThoughts : Opening::kNone;
  if (chat->form.has_channels) return Opening::kChannels;
  if (!chat->form.has_thoughts) return Opening::kNone;
  if (chat->form.begins_in_thoughts) return Opening::kThoughts;
  const size_t end = chat->text.find_last_not_of(" \n\r\t");
  const bool have_ended =
      end != kNowhere && std::string_view(chat->text).substr(0, end + 1).ends_with("</think>");
  return have_ended ? Opening::kNone : Opening::kMaybeThoughts;
}

class AnswerBuilder {
 public:
  AnswerBuilder(const grammar::TokenTrie& tokens, const ApiRequest& request,
                const MessageForm& form, std::string_view chat_template)
      : request_(request),
        form_(form),
        rules_(builder_),
        writer_{.rules = rules_,
                .mark = [&tokens](std::string_view mark) { return tokens.MarkBytes(mark); },
                .chat_template = chat_template} {}

  Grammar Build(Opening opening, bool may_call) {
    std::vector<ExpressionId> ways;
    if (request_.form.kind != TextForm::Kind::kFree) {
      const ExpressionId begin =
          opening == Opening::kChannels ? Text("<|channel|>final<|message|>") : builder_.Empty();
      ways.push_back(builder_.Row({begin, Content()}));
    }
    if (may_call)
      ways.push_back(CallsExpression(writer_, form_, request_.tools, request_.tool_choice.name));
    const grammar::RuleId root = builder_.AddRule();
    builder_.Define(root, builder_.Row({Thoughts(opening), builder_.Choice(std::move(ways))}));
    try {
      return builder_.Build(root);
    } catch (const Error& error) {
      Throw(error.kind(), "{}: {}",
            request_.form.kind == TextForm::Kind::kFree ? "tools" : request_.form.field,
            error.what());
    }
  }

 private:
  ExpressionId Text(std::string_view text) { return MarkedText(writer_, text); }
  ExpressionId Until(std::string_view mark) { return builder_.Until(writer_.mark(mark)); }

  ExpressionId Thoughts(Opening opening) {
    const ExpressionId line_ends = builder_.Repeat(builder_.Bytes("\n"), 0, 2);
    switch (opening) {
      case Opening::kNone:
        break;
      case Opening::kThoughts:
        return builder_.Row({Until("</think>"), line_ends});
      case Opening::kMaybeThoughts:
        return builder_.Optional(builder_.Row({Text("<think>"), Until("</think>"), line_ends}));
      case Opening::kChannels:
        return builder_.Optional(builder_.Row({Text("<|channel|>analysis<|message|>"),
                                               Until("<|end|>"), Text("<|start|>assistant")}));
    }
    return builder_.Empty();
  }

  ExpressionId Content() {
    const TextForm& form = request_.form;
    switch (form.kind) {
      case TextForm::Kind::kFree:
        break;
      case TextForm::Kind::kObject:
        return builder_.Call(rules_.AnyObject());
      case TextForm::Kind::kSchema:
        return builder_.Call(
            grammar::SchemaReader(rules_, form.schema, form.field).RuleOf(form.schema, ""));
      case TextForm::Kind::kChoice: {
        std::vector<ExpressionId> ways;
        for (const std::string& choice : form.choices) ways.push_back(builder_.Bytes(choice));
        return builder_.Choice(std::move(ways));
      }
      case TextForm::Kind::kPattern:
        return grammar::PatternExpression(
            form.pattern, form.field, false, builder_,
            [this](const tokenizer::CodePointSet& set) { return builder_.Characters(set); });
    }
    return builder_.Empty();
  }

  const ApiRequest& request_;
  const MessageForm& form_;
  GrammarBuilder builder_;
  grammar::JsonRules rules_;
  CallWriter writer_;
};

}  // namespace

std::optional<Refusal> AnswerGrammar(const ServedModel& model, const ApiRequest& request,
                                     const RenderedChat* chat,
                                     std::shared_ptr<grammar::TokenGrammar>& made) {
  made = nullptr;
  const bool is_free = request.form.kind == TextForm::Kind::kFree;
  if (is_free && !request.tool_choice.is_forced()) return std::nullopt;
  const std::string field = is_free ? "tool_choice" : request.form.field;
  // A call of harmony is a message of its own.
  const bool is_in_message = chat != nullptr && chat->form.goes_on && chat->form.has_channels;
  const bool may_call = chat != nullptr && !request.tools.IsNone() && !is_in_message &&
                        request.tool_choice.kind != ToolChoice::Kind::kNone;
  const MessageForm form = chat != nullptr ? chat->form : MessageForm();
  const std::string_view chat_template =
      chat != nullptr ? std::string_view(model.chat_template->text(may_call)) : std::string_view();
  const Opening opening = OpeningOf(chat);
  KeyText key;
  key.Add(static_cast<int64_t>(request.form.kind));
  key.Add(request.form.schema);
  for (const std::string& choice : request.form.choices) key.Add(choice);
  key.Add(request.form.pattern);
  key.Add(static_cast<int64_t>(opening));
  key.Add(may_call ? 1 : 0);
  if (may_call) key.Add(request.tools);
  key.Add(request.tool_choice.name);
  try {
    made = model.grammars->Get(key.key(), [&] {
      return AnswerBuilder(model.grammars->tokens(), request, form, chat_template)
          .Build(opening, may_call);
    });
    return std::nullopt;
  } catch (const Error& error) {
    return Refusal{.message = error.what(), .param = field, .code = "unsupported_value"};
  }
}

}  // namespace wideload::serve

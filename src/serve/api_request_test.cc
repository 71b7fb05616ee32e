#include "serve/api_request.h"

#include <gtest/gtest.h>

#include "jinja/value.h"

namespace wideload::serve {
namespace {

// What is said against the body: "param: message"; "" when it is read.
std::string Wrong(Operation operation, std::string_view body, ApiRequest* request = nullptr) {
  ApiRequest scratch;
  const auto refusal = ParseApiRequest(operation, body, request ? *request : scratch);
  return refusal ? refusal->param + ": " + refusal->message : "";
}

TEST(ApiRequest, ReadsWhatACompletionSays) {
  ApiRequest request;
  EXPECT_EQ(Wrong(kCompletion,
                  R"({"prompt": ["a", [1, 2]], "max_tokens": 5, "temperature": 0, "n": 2,
                      "stop": "x", "seed": -1, "logit_bias": {"7": -100}, "top_k": -1,
                      "stream": true, "stream_options": {"include_usage": true}, "user": null})",
                  &request),
            "");
  ASSERT_EQ(request.prompts.size(), 2U);
  EXPECT_EQ(request.prompts[0].text, "a");
  EXPECT_EQ(request.prompts[1].ids, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(request.sampling.max_tokens, 5);
  EXPECT_EQ(request.sampling.temperature, 0);
  EXPECT_EQ(request.sampling.top_k, 0);
  EXPECT_EQ(request.num_choices, 2);
  EXPECT_EQ(request.stop, std::vector<std::string>{"x"});
  EXPECT_EQ(request.seed, ~uint64_t{0});
  ASSERT_EQ(request.logit_bias.size(), 1U);
  EXPECT_EQ(request.logit_bias[0].id, 7);
  EXPECT_TRUE(request.include_usage);
}

TEST(ApiRequest, RefusesByName) {
  const std::pair<std::string_view, std::string> cases[] = {
      {R"({"prompt": "a", "temperatur": 1})", "temperatur: temperatur is a field that is not"},
      {R"({"prompt": "a", "max_tokens": 1.5})", "max_tokens: max_tokens is 1.5; it must be an int"},
      {R"({"prompt": "a", "max_tokens": -1})", "max_tokens: max_tokens is -1; allowed: 0 to"},
      {R"({"prompt": "a", "max_tokens": 1e30})", "max_tokens: max_tokens is 1e+30; it must be"},
      {R"({"prompt": "a", "n": 99999999999999999999})", "n: n is 1e+20; it must be an"},
      {R"({"prompt": "a", "stop": [1]})", "stop: stop is [1]; it must be a text or a list"},
      {R"({"prompt": "a", "logprobs": 21})", "logprobs: logprobs is 21; allowed: 0 to 20"},
      {R"({"prompt": "a", "cache_salt": ""})", "cache_salt: cache_salt is empty"},
      {R"({"prompt": "a", "suffix": "b"})", "suffix: suffix is not supported"},
      {R"({"prompt": [[1, "a"]]})", "prompt: prompt has \"a\", which is no token id"},
      {R"({"prompt": [-1]})", "prompt: prompt has -1, which is no token id"},
      {R"({"prompt": []})", "prompt: prompt is an empty list"},
      {R"({"prompt": [{}]})", "prompt: prompt must be a text, a list"},
      {R"({"prompt": "a", "logit_bias": {"x": 1}})", "logit_bias: logit_bias has the key \"x\""},
      {R"({"prompt": "a", "logit_bias": {"1": 101}})", "logit_bias: logit_bias of 1 is 101"},
      {R"({"prompt": "a", "response_format": {"type": "ebnf"}})",
       "response_format: response_format has a type"},
      {R"({"prompt": "a", "guided_json": "{"})", "guided_json: guided_json: the schema: not valid"},
      {R"({"prompt": "a", "structured_outputs": {"json": "{"}})",
       "structured_outputs: structured_outputs: the schema: not valid"},
      {R"({"max_tokens": 1})", "prompt: the field prompt is missing"},
      {R"([])", ": the body is no JSON object"},
      {R"({"prompt": "a", "prompt": "b"})", ": the body: duplicate JSON key"},
      {R"({"prompt": )", ": the body: not valid JSON"},
  };
  for (const auto& [body, expected] : cases)
    EXPECT_EQ(Wrong(kCompletion, body).substr(0, expected.size()), expected) << body;
}

TEST(ApiRequest, FieldsOfOtherOperationsAreNotKnown) {
  EXPECT_NE(Wrong(kChat, R"({"messages": [{"role": "user", "content": "a"}], "echo": true})"), "");
  EXPECT_NE(Wrong(kDetokenize, R"({"tokens": [1], "prompt": "a"})"), "");
  EXPECT_EQ(Wrong(kDetokenize, R"({"tokens": [1], "model": "m"})"), "");
  EXPECT_EQ(Wrong(kDetokenize, R"({"tokens": []})"), "");
  for (const std::string body : {"{}", R"({"tokens": null})"})
    EXPECT_EQ(Wrong(kDetokenize, body).substr(0, 8), "tokens: ") << body;
}

TEST(ApiRequest, ReadsHowAConversationGoesOn) {
  const std::string begin = R"({"messages": [{"role": "user", "content": "a"}])";
  ApiRequest request;
  EXPECT_EQ(Wrong(kChat, begin + R"(, "continue_final_message": true, "reasoning_effort": "low"})",
                  &request),
            "");
  EXPECT_TRUE(request.continue_final_message);
  EXPECT_FALSE(request.add_generation_prompt);
  EXPECT_EQ(request.reasoning_effort, "low");
  const std::pair<std::string, std::string> cases[] = {
      {R"(, "continue_final_message": true, "add_generation_prompt": true})",
       "continue_final_message: continue_final_message is true, and so is add_generation_prompt"},
      {R"(, "continue_final_message": true, "tool_choice": "required",
           "tools": [{"function": {"name": "f"}}]})",
       "continue_final_message: continue_final_message is not supported beside a tool_choice"},
      {R"(, "reasoning_effort": "extreme"})", "reasoning_effort: reasoning_effort is none of none"},
      {R"(, "metadata": {"a": "b"}})", "metadata: metadata is of chats that are stored"},
  };
  for (const auto& [fields, expected] : cases)
    EXPECT_EQ(Wrong(kChat, begin + fields).substr(0, expected.size()), expected) << fields;
  EXPECT_NE(Wrong(kChat, R"({"messages": [{"role": "assistant", "content": null}],
                             "continue_final_message": true})"),
            "");
  EXPECT_NE(Wrong(kTokenize, R"({"prompt": "a", "continue_final_message": true})"), "");
}

TEST(ApiRequest, KeepsTheOrderOfAToolsKeys) {
  ApiRequest request;
  EXPECT_EQ(Wrong(kChat,
                  R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"},
                                                                 {"type": "text", "text": "b"}]}],
                      "tools": [{"type": "function", "function": {"name": "f", "a": 1}}]})",
                  &request),
            "");
  const jinja::Dict* tool = request.tools.Seq()->items[0].Map();
  ASSERT_NE(tool, nullptr);
  EXPECT_EQ(tool->entries()[0].key.Str()->text(), "type");
  const jinja::Value* content = request.messages[0].Map()->Find("content");
  EXPECT_EQ(content->Str()->text(), "a\nb");
}

TEST(ApiRequest, ArgumentsOfToolCallsAreParsed) {
  ApiRequest request;
  EXPECT_EQ(Wrong(kChat,
                  R"({"messages": [{"role": "assistant", "content": null, "tool_calls": [
                      {"type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]}]})",
                  &request),
            "");
  const jinja::Value& call = request.messages[0].Map()->Find("tool_calls")->Seq()->items[0];
  EXPECT_NE(call.Map()->Find("function")->Map()->Find("arguments")->Map(), nullptr);
  EXPECT_NE(Wrong(kChat, R"({"messages": [{"role": "assistant", "tool_calls": [
                      {"function": {"arguments": "{"}}]}]})"),
            "");
}

TEST(ApiRequest, RefusesToolsThatCannotBeCalled) {
  const std::string begin = R"({"messages": [{"role": "user", "content": "a"}], "tools": )";
  for (const std::string tools :
       {R"([{}])", R"([{"type": "web_search"}])", R"([{"type": "function"}])",
        R"([{"type": "function", "function": {"name": ""}}])",
        R"([{"type": "function", "function": {"name": 5}}])",
        R"([{"type": "function", "function": {"name": "f", "parameters": "x"}}])",
        R"([{"function": {"name": "f"}}, {"function": {"name": "f"}}])"})
    EXPECT_EQ(Wrong(kChat, begin + tools + "}").substr(0, 7), "tools: ") << tools;
  EXPECT_EQ(Wrong(kChat, begin + R"([{"function": {"name": "f", "parameters": null}}]})"), "");
}

TEST(ApiRequest, NamesTheMessageWithACallThatIsNone) {
  const std::string begin = R"({"messages": [{"role": "user", "content": "a"},
                                {"role": "assistant", "content": "", "tool_calls": )";
  for (const std::string calls : {R"("x")", R"([1])", R"([{"function": {}}])",
                                  R"([{"function": {"name": "f", "arguments": "{x"}}])"})
    EXPECT_EQ(Wrong(kChat, begin + calls + "}]}").substr(0, 13), "messages[1]: ") << calls;
  EXPECT_EQ(Wrong(kChat, begin + "null}]}"), "");
}

TEST(ApiRequest, ShowsWholeCharactersOnly) {
  EXPECT_EQ(BeginOf("a\xc3\xa9", 2), "a");
  EXPECT_EQ(BeginOf("a\xc3\xa9", 3), "a\xc3\xa9");
  EXPECT_EQ(BeginOf("\xa9\xa9", 1), "");
}

TEST(ApiRequest, RefusesMessagesItCannotShow) {
  EXPECT_NE(Wrong(kChat, R"({"messages": []})"), "");
  EXPECT_NE(Wrong(kChat, R"({"messages": [{"content": "a"}]})"), "");
  EXPECT_NE(Wrong(kChat, R"({"messages": [{"role": "user", "content": 1}]})"), "");
  const std::string image = Wrong(
      kChat,
      R"({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]})");
  EXPECT_NE(image.find("image_url"), std::string::npos) << image;
}

}  // namespace
}  // namespace wideload::serve

#include "evaluation/tasks.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace wideload::evaluation {
namespace {

TEST(Documents, AreTheTextsOfTheirRows) {
  const auto documents =
      ParseDocuments("{\"text\": \"a\\nb\", \"other\": 1}\n\n{\"text\": \"c\"}", "f");
  EXPECT_EQ(documents, (std::vector<std::string>{"a\nb", "c"}));
}

TEST(Questions, AreRows) {
  const auto questions =
      ParseQuestions(R"({"context": "", "choices": ["x", "yz"], "gold": 1, "more": null})", "f");
  ASSERT_EQ(questions.size(), 1);
  EXPECT_EQ(questions[0].choices, (std::vector<std::string>{"x", "yz"}));
  EXPECT_EQ(questions[0].gold, 1);
}

TEST(Rows, AreRefusedByLineAndField) {
  const auto refusal = [](const char* content) -> std::string {
    try {
      ParseQuestions(content, "f.jsonl");
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  const std::string good = "{\"context\": \"c\", \"choices\": [\"x\", \"y\"], \"gold\": 0}\n";
  EXPECT_EQ(refusal(good.c_str()), "accepted");
  EXPECT_NE(refusal("\n").find("has no rows"), std::string::npos);
  EXPECT_NE(refusal((good + "{}").c_str()).find("f.jsonl line 2"), std::string::npos);
  for (const char* wrong : {R"({"context": "c", "choices": ["x"], "gold": 0})",
                            R"({"context": "c", "choices": ["x", ""], "gold": 0})",
                            R"({"context": "c", "choices": "xy", "gold": 0})"})
    EXPECT_NE(refusal(wrong).find("choices"), std::string::npos) << refusal(wrong);
  EXPECT_NE(refusal(R"({"context": "c", "choices": ["x", "y"], "gold": 2})").find("gold"),
            std::string::npos);
  EXPECT_THROW(ParseDocuments(R"({"text": ""})", "f"), Error);
}

}  // namespace
}  // namespace wideload::evaluation

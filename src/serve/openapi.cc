#include "serve/openapi.h"

#include <cmath>

#include "serve/api_request.h"

namespace wideload::serve {
namespace {

Json TypeSchema(const FieldRow& row) {
  const Json text = {{"type", "string"}};
  const Json ids = {{"type", "array"}, {"items", {{"type", "integer"}, {"minimum", 0}}}};
  const auto list_of = [](Json items) {
    return Json{{"type", "array"}, {"items", std::move(items)}};
  };
  switch (row.type) {
    case FieldType::kBool:
      return {{"type", "boolean"}};
    case FieldType::kInteger:
    case FieldType::kNumber:
      return {{"type", row.type == FieldType::kInteger ? "integer" : "number"},
              {"minimum", row.min},
              {"maximum", row.max}};
    case FieldType::kText:
      return text;
    case FieldType::kTexts:
      return {{"anyOf", {text, list_of(text)}}};
    case FieldType::kPrompt:
      return {{"anyOf", {text, list_of(text), ids, list_of(ids)}}};
    case FieldType::kIds:
      return ids;
    case FieldType::kObject:
      return {{"type", "object"}};
    case FieldType::kObjects:
      return list_of({{"type", "object"}});
    case FieldType::kAny:
      break;
  }
  return Json::object();
}

Json BodySchema(unsigned operation) {
  Json properties = Json::object();
  for (const FieldRow& row : FieldTable()) {
    if ((row.operations & operation) == 0) continue;
    Json schema = {{"description", std::string(row.help)}};
    const Json type = TypeSchema(row);
    schema["anyOf"] = Json::array({type, {{"type", "null"}}});
    properties[std::string(row.name)] = std::move(schema);
  }
  Json schema = {
      {"type", "object"}, {"properties", std::move(properties)}, {"additionalProperties", false}};
  if (operation == kCompletion) schema["required"] = {"prompt"};
  if (operation == kResponses) schema["required"] = {"input"};
  if (operation == kDetokenize) schema["required"] = {"tokens"};
  if (operation == kChat || operation == kApplyTemplate) schema["required"] = {"messages"};
  return schema;
}

Json Content(const char* type, Json schema) {
  return {{"content", {{type, {{"schema", std::move(schema)}}}}}};
}

Json Answer(const char* description, const char* type) {
  Json answer = Content(type, Json::object());
  answer["description"] = description;
  return answer;
}

Json Responses(const char* type) {
  Json error = Content("application/json", {{"$ref", "#/components/schemas/Error"}});
  error["description"] = "not carried out";
  return {{"200", Answer("done", type)}, {"default", std::move(error)}};
}

Json Post(const char* summary, unsigned operation) {
  Json body = Content("application/json", BodySchema(operation));
  body["required"] = true;
  Json responses = Responses("application/json");
  if ((operation & (kCompletion | kChat | kResponses)) != 0)
    responses["200"]["content"]["text/event-stream"] = {{"schema", Json::object()}};
  return {{"post",
           {{"summary", summary},
            {"requestBody", std::move(body)},
            {"responses", std::move(responses)}}}};
}

Json Get(const char* summary, const char* type = "application/json") {
  return {{"get", {{"summary", summary}, {"responses", Responses(type)}}}};
}

Json GetModel() {
  Json route = Get("the model of this name");
  route["get"]["parameters"] = Json::array({{{"name", "model"},
                                             {"in", "path"},
                                             {"required", true},
                                             {"schema", {{"type", "string"}, {"minLength", 1}}}}});
  return route;
}

Json ErrorSchema() {
  const Json text = {{"type", "string"}};
  const Json text_or_null = {{"type", {"string", "null"}}};
  return {{"type", "object"},
          {"required", {"error"}},
          {"properties",
           {{"error",
             {{"type", "object"},
              {"required", {"message", "type"}},
              {"properties",
               {{"message", text},
                {"type", text},
                {"param", text_or_null},
                {"code", text_or_null}}}}}}}};
}

}  // namespace

Json OpenApiDocument(const std::string& version) {
  Json paths = {{"/v1/completions", Post("continue a prompt", kCompletion)},
                {"/v1/chat/completions", Post("answer a conversation", kChat)},
                {"/v1/responses", Post("answer the items of a conversation", kResponses)},
                {"/tokenize", Post("the ids of a text or a conversation", kTokenize)},
                {"/detokenize", Post("the text of ids", kDetokenize)},
                {"/apply-template", Post("the prompt of a conversation", kApplyTemplate)},
                {"/v1/models", Get("the model that is served")},
                {"/v1/models/{model}", GetModel()},
                {"/health", Get("the process lives")},
                {"/health_generate", Get("the engine generates tokens")},
                {"/ready", Get("requests are taken")},
                {"/version", Get("of the program")},
                {"/server_info", Get("model, layout, and limits")},
                {"/tokenizer_info", Get("special tokens and chat template")},
                {"/metrics", Get("for Prometheus", "text/plain")},
                {"/prometheus/metrics", Get("the same", "text/plain")},
                {"/openapi.json", Get("this document")},
                {"/", Get("a page to talk with the model", "text/html")},
                {"/dashboard", Get("a page of what the engine does", "text/html")},
                {"/dashboard/data", Get("what the dashboard shows, but for the experts")},
                {"/dashboard/experts", Get("how much experts are wanted and where they are")}};
  return {{"openapi", "3.1.0"},
          {"info", {{"title", "wideload"}, {"version", version}}},
          {"paths", std::move(paths)},
          {"components",
           {{"schemas", {{"Error", ErrorSchema()}}},
            {"securitySchemes", {{"key", {{"type", "http"}, {"scheme", "bearer"}}}}}}},
          {"security", Json::array({Json::object(), {{"key", Json::array()}}})}};
}

}  // namespace wideload::serve

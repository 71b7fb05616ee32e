// The parts of the reader of tokenizer.json. Include only in .cc files.
#pragma once

#include "base/json.h"
#include "tokenizer/tokenizer_spec.h"

namespace wideload::tokenizer {

// All of them read a field of `root`, the whole document. Errors: as ParseTokenizerJson.

// The field of that name; errors name what is not supported, likewise below.
Normalizer ReadNormalizer(const JsonFields& root);
// Likewise.
PreTokenizer ReadPreTokenizer(const JsonFields& root);
// Likewise.
Decoder ReadDecoder(const JsonFields& root);

// The fields model and added_tokens: `vocabulary`, `bpe` and `added_tokens` of `spec`, whose
// pre_tokenizer is already read.
void ReadVocabulary(const JsonFields& root, TokenizerSpec& spec);

// What a tokenizer_config.json says beside a tokenizer.json: add_bos_token and add_eos_token, where
// given, decide whether the tokens bos_token and eos_token are in `prefix` and `suffix` of `spec`.
// Source: huggingface/transformers, tokenization_utils_tokenizers.py, update_post_processor.
// Errors: kInvalid and kCorrupt with file, field, found and allowed.
void ApplyTokenizerConfig(const JsonFields& config, TokenizerSpec& spec);

// The template of a single text: `prefix` and `suffix` of `spec`, whose vocabulary is already read.
void ReadPostProcessor(const JsonFields& root, TokenizerSpec& spec);

}  // namespace wideload::tokenizer

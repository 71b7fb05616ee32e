#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/document.h"
#include "formats/inflate.h"
#include "formats/npy.h"
#include "formats/pickle.h"
#include "formats/testing.h"
#include "formats/zip_file.h"

namespace wideload::formats {
namespace {

using ::testing::HasSubstr;

std::string Npy(const std::string& header, const std::string& data) {
  const auto size = static_cast<uint16_t>(header.size() + 1);
  return std::string("\x93NUMPY\x01\0", 8) + static_cast<char>(size & 0xff) +
         static_cast<char>(size >> 8) + header + "\n" + data;
}

std::string NpyRefusal(const std::string& bytes) {
  return RefusalOf([&] { ParseNpy(BytesOf(bytes), "f.npy"); });
}

TEST(Npy, ReadsBothOrdersAndTypes) {
  const std::string data = Raw<int32_t>({1, 2, 3, 4, 5, 6});
  const std::string row_major = "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }";
  const NumberArray rows = ParseNpy(BytesOf(Npy(row_major, data)), "f");
  EXPECT_EQ(rows.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(rows.values, (std::vector<double>{1, 2, 3, 4, 5, 6}));
  EXPECT_TRUE(rows.of_integers);
  const std::string columns = "{'descr': '<i4', 'fortran_order': True, 'shape': (2, 3), }";
  EXPECT_EQ(ParseNpy(BytesOf(Npy(columns, data)), "f").values,
            (std::vector<double>{1, 3, 5, 2, 4, 6}));
  const std::string halves = "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }";
  const NumberArray half = ParseNpy(BytesOf(Npy(halves, Raw<double>({0.5}))), "f");
  EXPECT_EQ(half.values, (std::vector<double>{0.5}));
  EXPECT_FALSE(half.of_integers);
}

TEST(Npy, WritesWhatItReads) {
  for (const NumberArray& array :
       {NumberArray{.shape = {2, 2}, .values = {1, 2, 3, 4}},
        NumberArray{.shape = {2}, .values = {0.5, 1}, .of_integers = false}})
    EXPECT_EQ(ParseNpy(BytesOf(FormatNpy(array)), "f"), array);
  EXPECT_EQ(FormatNpy({.shape = {1}, .values = {7}}).size() % 64, 8U);
}

TEST(Npy, RefusesByNameWhatItCannotRead) {
  EXPECT_THAT(NpyRefusal("PK"), HasSubstr("is no .npy file"));
  EXPECT_THAT(NpyRefusal(Npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "")),
              HasSubstr("Python objects (pickled code), which are never read"));
  EXPECT_THAT(NpyRefusal(Npy("{'descr': '>i8', 'fortran_order': False, 'shape': (1,), }", "")),
              HasSubstr("\">i8\"; little-endian"));
  EXPECT_THAT(
      NpyRefusal(Npy("{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }", "12345678")),
      HasSubstr("has 8 bytes of data; [2] of <i8 need 16"));
  EXPECT_THAT(NpyRefusal(Npy("{'descr': '<i8', 'shape': (2,), }", "")),
              HasSubstr("must tell descr, fortran_order and shape"));
  EXPECT_THAT(NpyRefusal(Npy("{'descr': '<i1', 'fortran_order': False, "
                             "'shape': (9223372036854775807, 9), }",
                             "")),
              HasSubstr("at most 1073741824 elements"));
}

TEST(Inflate, UnpacksStoredFixedAndDynamicBlocks) {
  // "aaaaaaaaaabbbb" by zlib at levels 0 and 9
  const std::string stored(
      "\x01\x0e\x00\xf1\xff"
      "aaaaaaaaaabbbb",
      19);
  const std::string fixed("\x4b\x4c\x84\x81\x24\x20\x00\x00", 8);
  EXPECT_EQ(Inflate(BytesOf(stored), 14, "f"), "aaaaaaaaaabbbb");
  EXPECT_EQ(Inflate(BytesOf(fixed), 14, "f"), "aaaaaaaaaabbbb");
  const std::string dynamic(
      "\x2d\x8e\x8b\x11\x00\x20\x08\x42\x57\x61\xb5\x87\xee\x3f\x43\xc2\xd5\x95\x51\xf2"
      "\x11\x8d\xbd\x06\xb3\xc0\x0e\x63\xb4\x79\x23\xa7\xec\x8a\xc1\xbe\xc3\x2c\xbe\xfe"
      "\xba\x2d\xdf\xd2\x89\x90\x14\xf6\xa1\x5a\xe1\x96\xa8\x7a\x3b\xa2\xb8\x87\xa2\x11"
      "\x4a\x48\x4d\x4b\x57\xe3\x4b\x9c\x8f\xc3\x0e\xe3\xc0\xe8\xfe\x6e\x3b\xb9\x19\x73"
      "\x3b\xc8\xfe\x2c\x1a\xc1\x03",
      87);
  std::string text;
  uint32_t x = 1;
  for (int i = 0; i < 200; ++i) {
    x = (x * 1103515245U + 12345U) % (1U << 31);
    text += "aaaaaabbbc d"[(x >> 16) % 12];
  }
  EXPECT_EQ(Inflate(BytesOf(dynamic), text.size(), "f"), text);
  EXPECT_THAT(RefusalOf([&] { Inflate(BytesOf(fixed), 13, "f"); }), HasSubstr("more than the 13"));
  EXPECT_THAT(RefusalOf([&] { Inflate(BytesOf(fixed.substr(0, 3)), 14, "f"); }),
              HasSubstr("ends too early"));
  EXPECT_THAT(RefusalOf([&] { Inflate(BytesOf("\x07"), 1, "f"); }), HasSubstr("no known kind"));
}

TEST(Npz, ReadsTheArraysOfAnArchive) {
  const NumberArray one{.shape = {1}, .values = {7}};
  const std::string archive =
      ZipMaker().Add("load.npy", FormatNpy(one)).Add("notes.txt", "mine").Archive();
  const auto arrays = ParseNpz(BytesOf(archive), "f.npz");
  EXPECT_EQ(arrays.size(), 1U);
  EXPECT_EQ(arrays.at("load"), one);
}

TEST(ZipFile, RefusesCutArchivesAndChangedMembers) {
  std::string archive = ZipMaker().Add("a", "content").Archive();
  EXPECT_THAT(RefusalOf([&] { ZipFile(BytesOf(archive).first(40), "f"); }),
              HasSubstr("no directory at its end"));
  archive[archive.find("content")] = 'C';
  const ZipFile changed(BytesOf(archive), "f");
  std::string buffer;
  EXPECT_THAT(RefusalOf([&] { changed.Read("a", buffer); }), HasSubstr("f: a: the checksum"));
  EXPECT_THAT(RefusalOf([&] { changed.Read("b", buffer); }), HasSubstr("no member b"));
}

std::string Torch(const std::string& pickle, const std::string& data) {
  return ZipMaker()
      .Add("x/data.pkl", pickle)
      .Add("x/byteorder", "little")
      .Add("x/data/0", data)
      .Archive();
}

std::string TorchRefusal(const std::string& pickle) {
  const std::string archive = Torch(pickle, Raw<int32_t>({1, 2, 3, 4, 5, 6}));
  return RefusalOf([&] { ParseTorchDocument(BytesOf(archive), "f.pt"); });
}

TEST(TorchDocument, ReadsTensorsWithTheirStrides) {
  const std::string data = Raw<int32_t>({1, 2, 3, 4, 5, 6});
  const auto read = [&](const std::vector<uint8_t>& shape, const std::vector<uint8_t>& strides) {
    const std::string archive = Torch(TensorPickle(shape, strides, 6), data);
    const Document document = ParseTorchDocument(BytesOf(archive), "f.pt");
    return *document.Find("logical_count")->AsArray();
  };
  EXPECT_EQ(read({2, 3}, {3, 1}).values, (std::vector<double>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(read({3, 2}, {1, 3}).values, (std::vector<double>{1, 4, 2, 5, 3, 6}));
  EXPECT_EQ(read({2, 2}, {0, 1}).values, (std::vector<double>{1, 2, 1, 2}));
  EXPECT_THAT(TorchRefusal(TensorPickle({7}, {1}, 6)), HasSubstr("lies beyond the 6 elements"));
  EXPECT_THAT(TorchRefusal(TensorPickle({2, 3}, {200, 1}, 6)), HasSubstr("lies beyond"));
}

TEST(TorchDocument, ExecutesNothingAndNamesWhatItRefuses) {
  // what pickle makes of os.system("true") and of builtins.eval
  EXPECT_THAT(TorchRefusal(std::string("\x80\x02") + "cposix\nsystem\nX\x04\0\0\0true\x85R."),
              HasSubstr("names posix.system, which is not allowed"));
  EXPECT_THAT(TorchRefusal("\x80\x04\x8c\x08"
                           "builtins\x8c\x04"
                           "eval\x93."),
              HasSubstr("names builtins.eval"));
  EXPECT_THAT(TorchRefusal(std::string("\x80\x02") + "ctorch\nload\n."), HasSubstr("torch.load"));
  EXPECT_THAT(TorchRefusal(std::string("\x80\x02") + "ctorch._utils\n_rebuild_tensor\n."),
              HasSubstr("torch._utils._rebuild_tensor,"));
  // BUILD, INST, OBJ, NEWOBJ, EXT1, and the persistent id of protocol 0
  for (const char opcode : {'b', 'i', 'o', '\x81', '\x82', 'P'})
    EXPECT_THAT(
        TorchRefusal(std::string("\x80\x02}}") + opcode + "x\ny\n."),
        HasSubstr(fmt::format("opcode 0x{:02x} is not allowed", static_cast<uint8_t>(opcode))));
  EXPECT_THAT(TorchRefusal(std::string("\x80\x02") + "ccollections\nOrderedDict\nK\x01\x85R."),
              HasSubstr("calls collections.OrderedDict with 1 arguments"));
}

TEST(TorchDocument, RefusesBrokenPickles) {
  EXPECT_THAT(TorchRefusal(""), HasSubstr("ends too early"));
  EXPECT_THAT(TorchRefusal("."), HasSubstr("does not end with one value"));
  EXPECT_THAT(TorchRefusal("N0."), HasSubstr("opcode 0x30"));
  EXPECT_THAT(TorchRefusal("a."), HasSubstr("empty stack"));
  EXPECT_THAT(TorchRefusal("t."), HasSubstr("mark that is not there"));
  EXPECT_THAT(TorchRefusal("h\x05."), HasSubstr("was not stored"));
  EXPECT_THAT(TorchRefusal("(}NNu."), HasSubstr("a key without"));
  EXPECT_THAT(TorchRefusal("]q\x01h\x01"
                           "a."),
              HasSubstr("nested deeper"));
  EXPECT_THAT(RefusalOf([] { ParseTorchDocument(BytesOf("\x80\x02N."), "f.pt"); }),
              HasSubstr("is no zip archive"));
}

TEST(JsonDocument, KeepsNestedNumbersAsArrays) {
  const Document document =
      ParseJsonDocument(R"({"a": [[1, 2], [3, 4]], "b": [[1], [2, 3]], "c": "x", "d": 1.5})", "f");
  EXPECT_EQ(document.Find("a")->AsArray()->shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(document.Find("b")->AsArray(), nullptr);
  EXPECT_EQ(document.Find("b")->AsList()->size(), 2U);
  EXPECT_FALSE(document.Find("d")->AsArray()->of_integers);
  EXPECT_THAT(RefusalOf([&] { IntegerOf(document, "d", 0, 9, "f"); }),
              HasSubstr("f: d is 1.5; it must be an integer in [0, 9]"));
  EXPECT_THAT(RefusalOf([&] { IntegerOf(document, "e", 0, 9, "f"); }), HasSubstr("e is missing"));
}

}  // namespace
}  // namespace wideload::formats

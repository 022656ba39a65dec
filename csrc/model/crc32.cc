// crc32.cc: CRC-32 eight bytes at a time (slicing-by-8, Kounavis and Berry 2005) and how two are
// combined, by multiplication with x^(8n) modulo the polynomial: pieces can be summed in parallel.
#include <array>
#include <cstring>

#include "model/weights.h"

namespace polylm {
namespace {

constexpr uint32_t kPolynomial = 0xEDB88320u;
using Table = std::array<std::array<uint32_t, 256>, 8>;

constexpr Table make_table() {
  Table t{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1u) != 0 ? kPolynomial ^ (c >> 1) : c >> 1;
    t[0][i] = c;
  }
  for (size_t slice = 1; slice < 8; ++slice) {
    for (size_t i = 0; i < 256; ++i) {
      const uint32_t c = t[slice - 1][i];
      t[slice][i] = t[0][c & 255u] ^ (c >> 8);
    }
  }
  return t;
}
constexpr Table kTable = make_table();

// a * b modulo the polynomial; bit 31 is x^0 (reflected).
uint32_t multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t bit = 0x80000000u; bit != 0; bit >>= 1) {
    if ((a & bit) != 0) product ^= b;
    b = (b & 1u) != 0 ? (b >> 1) ^ kPolynomial : b >> 1;
  }
  return product;
}

}  // namespace

uint32_t crc32_update(uint32_t crc, const void* data, size_t bytes) {
  const auto* p = static_cast<const unsigned char*>(data);
  uint32_t c = ~crc;
  for (; bytes >= 8; bytes -= 8, p += 8) {
    uint32_t lo;
    uint32_t hi;
    std::memcpy(&lo, p, 4);
    std::memcpy(&hi, p + 4, 4);
    lo ^= c;
    c = kTable[7][lo & 255u] ^ kTable[6][(lo >> 8) & 255u] ^ kTable[5][(lo >> 16) & 255u] ^
        kTable[4][lo >> 24] ^ kTable[3][hi & 255u] ^ kTable[2][(hi >> 8) & 255u] ^
        kTable[1][(hi >> 16) & 255u] ^ kTable[0][hi >> 24];
  }
  for (; bytes > 0; --bytes, ++p) c = kTable[0][(c ^ *p) & 255u] ^ (c >> 8);
  return ~c;
}

uint32_t crc32_combine(uint32_t crc_a, uint32_t crc_b, int64_t bytes_b) {
  uint32_t power = 0x00800000u;  // x^8: one byte of zeros
  uint32_t factor = 0x80000000u;  // x^0
  for (int64_t n = bytes_b; n > 0; n >>= 1) {
    if ((n & 1) != 0) factor = multiply(factor, power);
    power = multiply(power, power);
  }
  return multiply(factor, crc_a) ^ crc_b;
}

}  // namespace polylm

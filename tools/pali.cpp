// The command line: verbs live in tools/pali/, one file each.
#include <cstdio>

#include "pali/version.hpp"

int main() { std::printf("pali %s\n", PALI_VERSION); }

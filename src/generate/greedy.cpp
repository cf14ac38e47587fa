#include "generate/generate.hpp"

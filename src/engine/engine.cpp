#include "pali/engine.hpp"

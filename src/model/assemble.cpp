#include "model/assemble.hpp"

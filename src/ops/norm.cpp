#include "ops/norm.hpp"

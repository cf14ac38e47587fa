#include "tasks/prompt.hpp"

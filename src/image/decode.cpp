#include "image/image.hpp"

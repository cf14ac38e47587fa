// Everything public in one include.
#pragma once

#include "pali/checkpoint.hpp"
#include "pali/engine.hpp"
#include "pali/error.hpp"
#include "pali/image.hpp"
#include "pali/options.hpp"
#include "pali/system.hpp"
#include "pali/version.hpp"

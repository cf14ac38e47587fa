#!/usr/bin/env bash
# Installs what the build needs on Debian or Ubuntu; does nothing where all is there.
# Usage: tools/setup.sh [extra packages...]
set -euo pipefail

install_missing() {
  local package missing=() sudo=
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return

  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "setup: run as root, or install: ${missing[*]}" >&2; exit 1; }
    sudo=sudo
  fi
  echo "setup: installing ${missing[*]}" >&2
  export DEBIAN_FRONTEND=noninteractive
  $sudo apt-get update -qq >&2
  $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

install_missing g++ cmake ninja-build pkg-config python3 libdnnl-dev libeigen3-dev libsentencepiece-dev \
  libcli11-dev libstb-dev nlohmann-json3-dev libgtest-dev zlib1g-dev "$@"

# From 0.2.1 on sentencepiece's header names Abseil's, and Debian's package does not bring them.
if grep -qs 'include <absl/' /usr/include/sentencepiece_processor.h; then install_missing libabsl-dev; fi
